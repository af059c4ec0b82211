"""`taskrun pause` and `resume`: of one run, or given the name of a job, of all its runs."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer

from taskrun.cli.backend.described_jobs import did_you_mean
from taskrun.cli.backend.documents import completed
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.sanitize import cell
from taskrun.cli.screens.phrases import named, short
from taskrun.cli.session import Backend, Session
from taskrun.model.errors import RunNotFound

app = typer.Typer(rich_markup_mode=None, add_completion=False)
REF_OR_JOB = typer.Argument(..., metavar="RUN|JOB", help="A run, or a job with all its runs.")


@app.command()
def pause(target: str = REF_OR_JOB, json: bool = COMMON.json) -> Any:
    """Pause a run before its next step, or all runs of a job.

    Example: taskrun pause @last
    """
    return partial(change, "pause", target, json)


@app.command()
def resume(target: str = REF_OR_JOB, json: bool = COMMON.json) -> Any:
    """Resume a paused run or a paused job.

    Example: taskrun resume @last
    """
    return partial(change, "resume", target, json)


async def change(op: str, target: str, as_json: bool, session: Session) -> int:
    """Pauses or resumes, and reports what has changed."""
    backend = await session.daemon()
    names = [job["name"] for job in (await backend.call("jobs"))["jobs"]]
    if target in names:
        changed = await backend.call(op, job=target)
        said = _job_line(op, target, changed)
    else:
        changed = await backend.call(op, run=await _run(backend, target, names))
        said = [_run_line(op, run) for run in changed]
    if as_json:
        session.json([await completed(backend, one) for one in changed])
        return Code.DONE
    for line in said:
        session.say(line)
    ref = cell(target) if target in names else short(changed[0]["id"])
    session.say(f"  go on: taskrun resume {ref}" if op == "pause" else "  see: taskrun list")
    return Code.DONE


async def _run(backend: Backend, target: str, names: list[str]) -> str:
    """Returns the run that is meant; what is neither a run nor a job may be a misspelt job."""
    try:
        return str(await backend.call("find", ref=target))
    except RunNotFound:
        raise Stop(
            Code.NOT_FOUND, f'no run or job "{target}"', hint=did_you_mean(target, names, "see: taskrun list --all")
        ) from None


def _job_line(op: str, job: str, changed: list[dict[str, Any]]) -> list[str]:
    if not changed:
        return [f"job {cell(job)} was {'paused already' if op == 'pause' else 'not paused'}"]
    count = changed[0]["runs"]
    return [f"job {cell(job)}: {op}d, {count} run{'' if count == 1 else 's'} {'held' if op == 'pause' else 'released'}"]


def _run_line(op: str, run: dict[str, Any]) -> str:
    pausing = op == "pause" and run["status"] != "paused"
    state = "pausing after the step in flight" if pausing else run["status"]
    return f"{short(run['id'])} {named(run)}: {state}"
