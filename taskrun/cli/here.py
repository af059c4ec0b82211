"""A command line in this very process: the way of everything that no warm daemon takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from taskrun.cli.app import execute
from taskrun.cli.exits import Code
from taskrun.cli.gate import Direct
from taskrun.cli.terminal import Local


def perform(argv: Sequence[str], intent: str) -> int:
    """Returns the exit code of a command line."""
    try:
        return asyncio.run(execute(argv, Local(intent), Direct()))
    except KeyboardInterrupt:  # before a command was under way
        return Code.INTERRUPTED
