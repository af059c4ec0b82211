"""`taskrun jobs`: the jobs that were found, or one of them with its options."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer

from taskrun.cli.backend.described_jobs import described_in, loads_late
from taskrun.cli.backend.unknown_jobs import unknown_jobs
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code
from taskrun.cli.sanitize import lines
from taskrun.cli.screens.jobs import job_screen, jobs_table, jobs_tsv, problem_line, refusals, with_relative_file
from taskrun.cli.session import Session
from taskrun.model.names import RESERVED

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def jobs(name: str = typer.Argument("", metavar="[JOB]"), json: bool = COMMON.json) -> Any:
    """List the jobs, with what starts them; with a name, that job's options.

    Example: taskrun jobs hello
    """
    return partial(one if name else every, name, json)


async def every(_: str, as_json: bool, session: Session) -> int:
    """Lists the jobs; broken files are reported, and the others are listed all the same."""
    answer = await (await session.reader()).call("jobs")
    listed = [job for job in answer["jobs"] if job["name"] not in RESERVED]
    found = [with_relative_file(job, session.project.root) for job in listed]
    if as_json:
        session.json(listed)
    elif not session.facts.out_tty:
        session.data(jobs_tsv(found))
    elif found:
        session.show(jobs_table(found, session.look()))
    for problem in answer.get("problems") or ():
        session.say(f"error: {problem_line(with_relative_file(problem, session.project.root))}")
    code = _tell_unfit(session, answer)
    for job in listed:
        for line in refusals(job, session.now, lasting=True):
            session.say(f"warning: {job['name']}: {line}")
    for problem in unknown_jobs(session.project, {job["name"] for job in answer["jobs"]}):
        session.say(f"warning: {lines(problem)}")
    if not as_json:
        first = found[0]["name"] if found else ""
        session.say(f"start one: taskrun start {first} --help" if first else _no_jobs(session))
    return code


def _tell_unfit(session: Session, answer: dict[str, Any]) -> Code:
    """Says which inputs of `[[schedule]]` and `[[files]]` do not fit their jobs; with a daemon that is done already."""
    unfit = list((answer.get("inputs") or {}).values())
    for problem in unfit:
        session.say(f"error: {lines(problem)}")
    return Code.USAGE if unfit else Code.DONE


def _no_jobs(session: Session) -> str:
    """Returns where to write a job; `init` is not for one's own project."""
    return f"no jobs; write one into {session.project.path}" if session.user else "no jobs; write one: taskrun init"


async def one(name: str, as_json: bool, session: Session) -> int:
    """Shows one job."""
    backend = await session.reader()
    answer = await backend.call("jobs")
    described = described_in(answer, name, "job", loads_late(session, backend))
    if as_json:
        session.json([described])
    else:
        session.show(job_screen(with_relative_file(described, session.project.root), session.look(), now=session.now))
    return _tell_unfit(session, answer)
