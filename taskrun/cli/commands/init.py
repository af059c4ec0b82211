"""`taskrun init`: creates a project that runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import typer

from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.sanitize import cell
from taskrun.cli.session import Session

app = typer.Typer(rich_markup_mode=None, add_completion=False)

CONFIG = """\
[taskrun]
jobs = ["jobs"]                  # modules, packages, folders or globs
# journal = ".taskrun/journal.db"
# concurrency = 100              # runs at once, per worker
# grace = "10s"                  # for handlers and processes to end after cancel or stop

# [retention]
# keep = "30d"                   # finished runs older than this are pruned

[jobs.disk]                      # a job that is a command: taskrun run disk --path /
description = "How full the disk of a folder is"
command = "df -h {path}"         # {fields} are quoted for the shell
input = { path = { type = "path", default = "." } }
# cron = "0 9 * * *"             # every morning
# retry = 2

# [[schedule]]                   # start a job by the clock, without touching its code
# job = "hello"
# cron = "0 9 * * *"
# input = { name = "Ada" }
"""
HELLO = '''\
"""A first job: `taskrun run hello --name Ada`."""

from taskrun import job, log, run, sleep


@job
async def hello(name: str = "world", excited: bool = False) -> str:
    """Greets somebody, in durable steps: each runs once, whatever happens to the process."""
    greeting = await run("compose", compose, name)
    log.info("composed %r", greeting)
    await sleep("1s")
    return greeting + ("!" if excited else ".")


async def compose(name: str) -> str:
    return f"Hello, {name}"
'''
IGNORE = "*\n"
FILES = {"taskrun.toml": CONFIG, "jobs/hello.py": HELLO, ".taskrun/.gitignore": IGNORE}


@app.command()
def init(folder: str = typer.Argument(".", metavar="[DIR]")) -> Any:
    """Write taskrun.toml with a first command, and a first job in Python; overwrites nothing.

    Example: taskrun init my-project
    """
    return partial(perform, folder)


async def perform(folder: str, session: Session) -> int:
    """Writes the files that do not exist yet and names the next command."""
    if session.user:
        raise Stop(Code.USAGE, "your own project needs no init: the first command with --user makes it")
    root = session.facts.cwd / folder
    try:
        _make_own(root / ".taskrun")
        written = [name for name, text in FILES.items() if _write(root / name, text)]
    except OSError as error:
        raise Stop(Code.USAGE, f"cannot write {error.filename}: {error.strerror}") from None
    for name in FILES:
        if not name.startswith("."):
            session.say(f"  {name}  {'written' if name in written else 'exists already, not changed'}")
    there = "" if root.samefile(session.facts.cwd) else f"cd {cell(quote(folder))} && "
    session.say(f"next: {there}taskrun run hello --name Ada")
    session.say(f"  or  {there}taskrun run disk, the command in taskrun.toml")
    return Code.DONE


def _make_own(folder: Path) -> None:
    """Makes the folder of the journal and the logs, for this user alone, unless it exists."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(0o700, exist_ok=True)


def _write(path: Path, text: str) -> bool:
    """Writes a file unless it exists; returns whether it did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
