"""`taskrun` and `python -m taskrun`: a warm daemon executes the command line, or else this process does.

Importing this module and what it imports is all that a warm command pays for.
"""

import os
import sys

from taskrun.cli.thin import hand_over

HERE = "taskrun.cli.here"  # imported when it is needed: it takes longer than a warm daemon's whole answer


def main() -> None:
    """Runs the command line of this process."""
    argv, intent = sys.argv[1:], os.urandom(12).hex()
    try:
        code = hand_over(argv, intent)
    except KeyboardInterrupt:
        code = 130
    if code is not None:
        os._exit(code)  # everything is written, and there is nothing to tidy up
    sys.exit(__import__(HERE, fromlist=["perform"]).perform(argv, intent))


if __name__ == "__main__":
    main()
