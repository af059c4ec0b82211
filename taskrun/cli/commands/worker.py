"""`taskrun worker`: executes runs of a journal that several machines share, without a daemon."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import typer

from taskrun.cli.backend.all_schedules import check_before_start
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.session import Session
from taskrun.daemon.launch import PROGRAM, WORKER, environment, python
from taskrun.model.config import is_server

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_JOBS: Any = typer.Option(None, "--jobs", metavar="JOB", help="Execute runs of this job only (repeatable).")


@app.command()
def worker(
    jobs: list[str] = _JOBS,
    concurrency: int = typer.Option(
        None, "--concurrency", min=1, metavar="NUMBER", help="Runs at once, instead of `concurrency` in taskrun.toml."
    ),
    health: str = typer.Option(
        "", "--health", metavar="FILE", help="Write this file every second for as long as the worker is well."
    ),
) -> Any:
    """Execute runs of a journal that several machines share, without a daemon; for containers.

    TERM drains it: it starts nothing any more and ends with 0 once nothing executes, with 1 when the grace is over before.

    Example: taskrun worker --jobs transcode --concurrency 4 --health /run/taskrun-health
    """
    return partial(perform, jobs or [], concurrency, health)


async def perform(jobs: list[str], concurrency: int | None, health: str, session: Session) -> int:
    """Becomes the worker, in this process, so that whoever has started it sees it end."""
    if not is_server(session.config.journal):
        raise Stop(
            Code.USAGE,
            "workers share a journal on a server, and this one is a file",
            hint='set it: journal = "postgresql://…"; or run the daemon: taskrun daemon start',
        )
    await check_before_start(session)
    command = [*python(PROGRAM), WORKER, "--config", str(session.config.path)]
    command += ["--concurrency", str(concurrency)] if concurrency is not None else []
    command += ["--health", os.path.join(session.facts.cwd, health)] if health else []  # noqa: PTH118
    command += ["--jobs", *jobs] if jobs else []
    os.execve(command[0], command, environment({}))
