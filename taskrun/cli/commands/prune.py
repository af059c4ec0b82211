"""`taskrun prune`: removes old runs from the journal."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer

from taskrun.cli.common_options import COMMON, text_option
from taskrun.cli.exit_codes import Code
from taskrun.cli.session import Session
from taskrun.model import durations

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def prune(
    older: str = text_option(
        "--older-than", "DURATION", "Runs that ended longer ago, as in 7d; by default as [retention] says."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Remove nothing; only say which runs would be removed."),
    json: bool = COMMON.json,
) -> Any:
    """Remove runs that ended long ago, with their steps and logs.

    The daemon does this by itself, by [retention] in taskrun.toml.

    Example: taskrun prune --older-than 7d --dry-run
    """
    return partial(perform, durations.seconds(older, "--older-than") if older else None, dry_run, json)


async def perform(keep: float | None, dry_run: bool, as_json: bool, session: Session) -> int:
    """Removes them and reports how many; into a pipe, prints their ids."""
    seconds = session.config.keep if keep is None else keep
    gone = await (await session.daemon()).call("prune", keep=seconds, dry_run=dry_run)
    if as_json:
        session.json(gone)
        return Code.DONE
    if not session.facts.out_tty:
        session.data("".join(run + "\n" for run in gone))
    verb = "would be removed" if dry_run else "removed"
    session.say(f"{len(gone)} run{'' if len(gone) == 1 else 's'} that ended over {durations.human(seconds)} ago {verb}")
    if dry_run and gone:
        session.say(f"  remove them: taskrun prune --older-than {durations.human(seconds).replace(' ', '')}")
    return Code.DONE
