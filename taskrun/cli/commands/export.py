"""`taskrun export`: everything that the journal holds of a run, as one JSON document."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer

from taskrun.cli.backend.paging import old_lines
from taskrun.cli.exit_codes import Code
from taskrun.cli.session import Backend, Session

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def export(
    run: str = typer.Argument(..., metavar="RUN", help="An id, a part of one, @last or JOB@last."),
    json: bool = typer.Option(True, "--json", hidden=True),  # it prints nothing else
) -> Any:
    """Print all that there is of a run as one JSON document: its steps, its whole log, its children likewise.

    Example: taskrun export @last > run.json
    """
    return partial(perform, run)


async def perform(ref: str, session: Session) -> int:
    """Prints the document."""
    backend = await session.reader()
    session.json(await whole(backend, await backend.call("find", ref=ref)))
    return Code.DONE


async def whole(backend: Backend, run: str) -> dict[str, Any]:
    """Returns a run as `show` has it, with the whole log, and its children as documents of their own."""
    shown = await backend.call("show", run=run)
    children = [await whole(backend, child["id"]) for child in shown["children"]]
    return {**shown, "log": [line async for line in old_lines(backend, run)], "children": children}
