"""`python -m taskrun.cli.detached`: the daemon as `daemon.launch` starts it, together with the counter that it serves."""

from __future__ import annotations

from taskrun.cli.counter import CommandCounter
from taskrun.daemon.server import main

if __name__ == "__main__":
    main(counter=CommandCounter())
