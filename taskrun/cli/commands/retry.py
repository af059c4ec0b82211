"""`taskrun retry`: a new run in place of one that has ended."""

from __future__ import annotations

from functools import partial
from shlex import quote
from typing import Any

import typer

from taskrun.cli.backend.documents import completed
from taskrun.cli.common_options import COMMON, text_option
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.sanitize import cell
from taskrun.cli.screens.look import wrapped
from taskrun.cli.screens.phrases import short
from taskrun.cli.screens.run import next_commands, run_head
from taskrun.cli.session import Session
from taskrun.model.names import EACH

app = typer.Typer(rich_markup_mode=None, add_completion=False)
REF = typer.Argument(..., metavar="RUN", help="An id, a part of one, @last or JOB@last.")


@app.command()
def retry(
    run: str = REF,
    step: str = text_option("--from", "STEP", "Keep only the finished steps before this one."),
    failed: bool = typer.Option(False, "--failed", help="Of a run of --each: only what failed or was not started."),
    json: bool = COMMON.json,
    quiet: bool = COMMON.quiet,
) -> Any:
    """Run a run that has ended again, as a new run that keeps its finished steps.

    Example: taskrun retry @last --from fetch
    """
    if failed and step:
        raise Stop(Code.USAGE, "--failed keeps every run that succeeded, so --from has no meaning with it")
    return partial(start_again, run, step or None, failed, json, quiet)


async def start_again(ref: str, step: str | None, failed: bool, as_json: bool, quiet: bool, session: Session) -> int:
    """Retries and reports the new run."""
    backend = await session.daemon()
    old = await backend.call("find", ref=ref)
    tells = not (step or as_json or quiet)
    before = await backend.call("show", run=old) if failed or tells else {}
    if failed and before["job"] != EACH:
        raise Stop(Code.USAGE, f"--failed is for runs that --each started; {short(old)} is none")
    run = await backend.call("retry", run=old, step=step)
    if as_json:
        session.json(await completed(backend, run))
    elif quiet or not session.facts.out_tty:
        session.data(run["id"] + "\n")
    else:
        session.say(run_head(run, session.now, session.look(err=True)))
        parts = [f"  a retry of {short(old)}", *next_commands(run)]
        session.say(wrapped("   ".join(parts), session.look(err=True).width, "   ").replace("\n", "\n  "))
    if tells:
        _tell_kept(session, before)
    return Code.DONE


def _tell_kept(session: Session, old: dict[str, Any]) -> None:
    """Says that nothing is done again where everything was finished."""
    first = next((step["key"] for step in old["steps"] if step["kind"] != "value"), "")
    if old["status"] == "succeeded" and first and old["job"] != EACH:  # its first steps are its inputs
        again = f"taskrun retry {short(old['id'])} --from {cell(quote(first))}"
        session.say(f"it had succeeded, and a retry keeps what is finished; to do all of it again: {again}")
