"""`python -m taskrun.cli.foreground CONFIG`: the daemon in the foreground, as `taskrun daemon run` becomes it.

A process image of its own, because the daemon has its own event loop and takes its signals itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from taskrun.cli.counter import CommandCounter
from taskrun.cli.exits import Code, explain
from taskrun.daemon.server import serve
from taskrun.rules.schedule_tables import read_config


def main() -> None:
    """Runs until it is told to stop; says on standard error when it is ready, or why it cannot start."""
    try:
        serve(read_config(Path(sys.argv[1]), os.environ), foreground=True, ready=_say, counter=CommandCounter())
    except Exception as error:
        explained = explain(error)
        sys.stderr.write(explained.text())
        sys.exit(int(explained.code))
    sys.exit(int(Code.DONE))


def _say() -> None:
    sys.stderr.write("the daemon is ready; stop it with Ctrl-C\n")


if __name__ == "__main__":
    main()
