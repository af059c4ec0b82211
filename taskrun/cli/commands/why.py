"""`taskrun why`: the exact reason why a run is not running, or not finished."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer

from taskrun.cli.backend.missed_and_untold import missed_and_untold
from taskrun.cli.common_options import COMMON
from taskrun.cli.exit_codes import Code
from taskrun.cli.screens.why import why_screen
from taskrun.cli.session import Session

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def why(
    run: str = typer.Argument(..., metavar="RUN", help="An id, a part of one, @last or JOB@last."),
    json: bool = COMMON.json,
) -> Any:
    """Say why a run is not running or not finished: which limit, which event, until when.

    Example: taskrun why @last
    """
    return partial(perform, run, json)


async def perform(ref: str, as_json: bool, session: Session) -> int:
    """Prints the reason."""
    backend = await session.daemon()
    run = await backend.call("find", ref=ref)
    (found,) = await backend.call("why", runs=[run])
    shown = await backend.call("show", run=run)
    causes = [*found["causes"], *await missed_and_untold(backend, shown, session.now)]
    if as_json:
        session.json({**found, "causes": causes})
    else:
        session.show(why_screen(shown, causes, session.now, session.look()))
    return Code.DONE
