"""`taskrun` and `python -m taskrun`: this process's terminal, one command, its exit code."""

from __future__ import annotations

import asyncio
import sys

from taskrun.cli.app import execute
from taskrun.cli.exits import Code
from taskrun.cli.gate import Direct
from taskrun.cli.terminal import Local


def main() -> None:
    """Runs the command line of this process."""
    try:
        code = asyncio.run(execute(sys.argv[1:], Local(), Direct()))
    except KeyboardInterrupt:  # before a command was under way
        code = Code.INTERRUPTED
    sys.exit(int(code))


if __name__ == "__main__":
    main()
