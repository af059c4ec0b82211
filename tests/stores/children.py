"""Python processes that tests start, kill and race against each other."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import taskrun

PRELUDE = """
import os, sys, time
from taskrun.stores import highwater, sqlite_open
from taskrun.stores.sqlite import SqliteStorage
from taskrun.model.errors import *
from taskrun.model.records import Run
path = sys.argv[1]
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Starts `code`, which finds its first argument as `path`."""
    home = str(Path(taskrun.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": home},
    )


def finish(child: subprocess.Popen[str]) -> str:
    """Waits for a child that must end well; returns what it printed."""
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0, out
    return out


def run(code: str, *arguments: object) -> str:
    """Runs `code` to its good end; returns what it printed."""
    return finish(start(code, *arguments))
