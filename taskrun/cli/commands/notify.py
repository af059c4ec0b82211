"""`taskrun notify test`: sends one notification through each way of `[[notify]]`."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import msgspec
import typer

from taskrun.builtins.notify import test_message
from taskrun.cli.backend.resumable_streams import resumed
from taskrun.cli.command_group import CommandGroup
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.sanitize import cell
from taskrun.cli.screens.look import labelled
from taskrun.cli.screens.phrases import COMMAND_FAILED, fault, short
from taskrun.cli.session import Session
from taskrun.model.names import NOTIFY
from taskrun.model.notify_config import Way

app = typer.Typer(cls=CommandGroup, rich_markup_mode=None, add_completion=False)


@app.callback()
def notify() -> None:
    """Try the notifications of taskrun.toml.

    What was told: taskrun list --job notify

    Example: taskrun notify test
    """


@app.command()
def test(json: bool = COMMON.json) -> Any:
    """Send one notification through each way of [[notify]] at once; exit code 1 if one of them is closed.

    Example: taskrun notify test
    """
    return partial(perform, json)


async def perform(as_json: bool, session: Session) -> int:
    """Has the daemon tell a test in each way, once, and reports what came of it."""
    ways = list(dict.fromkeys(way for table in session.config.notify for way in table.ways))
    if not ways:
        hint = 'add one:\n    [[notify]]\n    on = ["failed", "recovered"]\n    desktop = true'
        raise Stop(Code.USAGE, f"there is no [[notify]] in {session.config.path}", hint=hint)
    told = await _told(session, ways)
    closed = [(way, run) for way, run in zip(ways, told, strict=True) if run["status"] != "succeeded"]
    if as_json:
        session.json([_view(way, run) for way, run in zip(ways, told, strict=True)])
    for way, run in [] if as_json else zip(ways, told, strict=True):
        problem = _problem(run)
        line = labelled(run["status"], session.look(err=True), way.label)
        session.say(line.append(f": {cell(problem)}" if problem else ""))
    if closed and not as_json:
        session.say(f"see what happened: taskrun show {short(closed[0][1]['id'])}")
    return Code.FAILED if closed else Code.DONE


async def _told(session: Session, ways: list[Way]) -> list[dict[str, Any]]:
    """Starts a run for each way; returns the runs once all have ended."""
    backend = await session.daemon()
    runs = []
    for way in ways:
        message = msgspec.json.encode(test_message(way, str(session.config.root), time.time())).decode()
        runs.append((await backend.call("start", job=NOTIFY, input=message, source="cli"))["run"]["id"])
    ended: dict[str, dict[str, Any]] = {}
    async for run in resumed(
        session, "wait", lambda: {"runs": [one for one in runs if one not in ended]}, lambda: None
    ):
        ended[run["id"]] = run
        if len(ended) == len(runs):
            break
    return [ended[run] for run in runs]


def _problem(run: dict[str, Any]) -> str:
    if run["status"] == "succeeded":
        return ""
    error = run["error"] or {"type": "", "message": run["reason"] or ""}
    return fault(error) if error["type"] == COMMAND_FAILED else str(error["message"])


def _view(way: Way, run: dict[str, Any]) -> dict[str, Any]:
    return {"way": way.label, "run": run["id"], "status": run["status"], "error": _problem(run) or None}
