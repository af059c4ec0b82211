"""`taskrun prune`: deletes runs that ended long ago."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer

from taskrun.cli.exits import Code
from taskrun.cli.inputs import ASK
from taskrun.cli.session import Session
from taskrun.words import durations

app = typer.Typer(rich_markup_mode=None)


@app.command()
def prune(
    older: str = typer.Option("", "--older-than", metavar="DURATION", help="Default: what [retention] keeps."),
    dry: bool = typer.Option(False, "--dry-run", help="Only say what would go."),
    json: bool = ASK.json,
) -> Any:
    """Delete runs that ended long ago, with their steps and logs.

    Example: taskrun prune --older-than 7d --dry-run
    """
    return partial(perform, durations.seconds(older, "--older-than") if older else None, dry, json)


async def perform(older: float | None, dry: bool, as_json: bool, session: Session) -> int:
    """Deletes and says how many."""
    caller = await session.daemon()
    kept = session.config.keep if older is None else older
    gone = await caller.call("prune", before=session.now - kept, dry=dry)
    ids = gone if isinstance(gone, list) else []
    if as_json:
        session.json(ids)
    else:
        count, verb = len(ids), "would go" if dry else "deleted"
        session.say(f"{count} run{'' if count == 1 else 's'} {verb}, ended more than {durations.human(kept)} ago")
    return Code.DONE
