"""`taskrun retry`, `pause` and `resume`: change one run, or with a job's name all that the job starts."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer

from taskrun.cli.exits import Code
from taskrun.cli.inputs import ASK
from taskrun.cli.screens.phrases import short
from taskrun.cli.screens.run import next_commands, run_head
from taskrun.cli.session import Caller, Session
from taskrun.cli.visible import cell

app = typer.Typer(rich_markup_mode=None)
REF = typer.Argument(..., metavar="RUN", help="An id, a part of one, @last or JOB@last.")
REF_OR_JOB = typer.Argument(..., metavar="RUN|JOB", help="A run, or a job with all that it starts.")


@app.command()
def retry(
    run: str = REF,
    step: str = typer.Option("", "--from", metavar="STEP", help="Keep the finished steps before this one only."),
    json: bool = ASK.json,
    quiet: bool = ASK.quiet,
) -> Any:
    """Start a run that has ended again, as a new run that keeps its finished steps.

    Example: taskrun retry @last --from fetch
    """
    return partial(start_again, run, step or None, json, quiet)


@app.command()
def pause(target: str = REF_OR_JOB, json: bool = ASK.json) -> Any:
    """Hold a run before its next step, or all runs of a job.

    Example: taskrun pause @last
    """
    return partial(change, "pause", target, json)


@app.command()
def resume(target: str = REF_OR_JOB, json: bool = ASK.json) -> Any:
    """Let a paused run, or a paused job, go on.

    Example: taskrun resume @last
    """
    return partial(change, "resume", target, json)


async def start_again(ref: str, step: str | None, as_json: bool, quiet: bool, session: Session) -> int:
    """Retries and says which run it is now."""
    caller = await session.daemon()
    old = await caller.call("find", ref=ref)
    run = await caller.call("retry", run=old, step=step)
    if as_json:
        session.json(run)
    elif quiet or not session.facts.out_tty:
        session.data(run["id"] + "\n")
    else:
        session.say(run_head(run, session.now, session.look(err=True)))
        session.say(f"  a retry of {short(old)}   " + "   ".join(next_commands(run)))
    return Code.DONE


async def change(op: str, target: str, as_json: bool, session: Session) -> int:
    """Pauses or resumes, and says what that changed."""
    caller = await session.daemon()
    job = await _is_job(caller, target)
    named = {"job": target} if job else {"run": await caller.call("find", ref=target)}
    answer = await caller.call(op, **named)
    changed = [one for one in (answer if isinstance(answer, list) else [answer]) if one]
    if as_json:
        session.json(changed)
        return Code.DONE
    if job:
        session.say(f"job {cell(target)}: {op}d")
    for run in changed:
        if "id" in run:
            session.say(f"{short(run['id'])} {cell(run['job'])}: {_outcome(op, run)}")
    ref = target if job else short(changed[0]["id"]) if changed else target
    session.say(
        f"  go on: taskrun resume {cell(ref)}"
        if op == "pause"
        else f"  see: taskrun list{' --job ' + ref if job else ''}"
    )
    return Code.DONE


async def _is_job(caller: Caller, target: str) -> bool:
    answer = await caller.call("jobs")
    return any(one["name"] == target for one in answer["jobs"])


def _outcome(op: str, run: dict[str, Any]) -> str:
    if op == "pause" and run["status"] != "paused":
        return "pausing after the step in flight"
    return str(run["status"])
