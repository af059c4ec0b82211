"""`taskrun wait`: waits until runs have ended."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import typer

from taskrun.cli.backend.documents import completed
from taskrun.cli.backend.resumable_streams import resumed
from taskrun.cli.common_options import COMMON, text_option
from taskrun.cli.exit_codes import Code, Stop, code_of
from taskrun.cli.screens.phrases import ENDED, short
from taskrun.cli.screens.run import end_line, paused_text
from taskrun.cli.session import Session
from taskrun.model import durations

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def wait(
    runs: list[str] = typer.Argument(..., metavar="RUN...", help="An id, a part of one, @last or JOB@last."),  # noqa: B008
    timeout: str = text_option("--timeout", "DURATION", "Give up after that, with exit code 124."),
    json: bool = COMMON.json,
) -> Any:
    """Wait until runs have ended; the exit code tells how a single run ended.

    Ctrl-C only stops waiting: the run goes on.

    Example: taskrun wait @last --timeout 5m && deploy
    """
    return partial(perform, tuple(runs), durations.seconds(timeout, "--timeout") if timeout else None, json)


async def perform(refs: tuple[str, ...], timeout: float | None, as_json: bool, session: Session) -> int:
    """Waits, reports how each run ended, and returns the exit code for that."""
    backend = await session.daemon()
    runs = [await backend.call("find", ref=ref) for ref in refs]
    ended: dict[str, dict[str, Any]] = {}
    try:
        async with asyncio.timeout(timeout):
            await _collect(session, list(dict.fromkeys(runs)), ended, as_json)
    except TimeoutError:
        reader = await session.reader()
        for run in dict.fromkeys(runs):  # with a timeout of 0 it may have ended long ago
            if run not in ended and (await reader.call("show", run=run))["status"] in ENDED:
                await _collect(session, [run], ended, as_json)
        if left := " ".join(short(run) for run in dict.fromkeys(runs) if run not in ended):
            verb = "has" if " " not in left else "have"
            hint = f"see: taskrun show {left.split()[0]}"
            raise Stop(Code.TIMED_OUT, f"timed out: {left} {verb} not ended", hint=hint) from None
    except asyncio.CancelledError:
        left = " ".join(short(run) for run in runs if run not in ended)
        session.say(f"no longer waiting; {left} {'goes' if ' ' not in left else 'go'} on: taskrun wait {left}")
        return Code.INTERRUPTED
    found = [ended[run] for run in runs]
    if as_json:
        reader = await session.reader()
        found = [await completed(reader, run) for run in found]
        session.json(found[0] if len(found) == 1 else found)
    return max(map(code_of, found)) if len(found) > 1 else code_of(found[0])


async def _collect(session: Session, runs: list[str], ended: dict[str, dict[str, Any]], as_json: bool) -> None:
    def left() -> dict[str, Any]:
        return {"runs": [run for run in runs if run not in ended], "paused": True}

    async for run in resumed(session, "wait", left, lambda: None):
        if run["status"] not in ENDED:
            session.say(paused_text(run, session.now, session.look(err=True)))
            continue
        ended[run["id"]] = run
        if not as_json:
            session.say(end_line(run, session.now, session.look(err=True)))
        if not left()["runs"]:
            return
