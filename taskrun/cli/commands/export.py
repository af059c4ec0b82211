"""`taskrun export`: everything in the journal about a run, as one JSON document."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import typer

from taskrun.cli.backend.documents import print_document, run_document
from taskrun.cli.backend.paging import old_lines
from taskrun.cli.exit_codes import Code
from taskrun.cli.session import Backend, Session

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def export(
    run: str = typer.Argument(..., metavar="RUN", help="An id, a part of one, @last or JOB@last."),
    json: bool = typer.Option(True, "--json", hidden=True),  # it prints nothing else
) -> Any:
    """Print everything about a run as one JSON document: its steps, its whole log, and its children likewise.

    Example: taskrun export @last > run.json
    """
    return partial(perform, run)


async def perform(ref: str, session: Session) -> int:
    """Prints the document."""
    backend = await session.reader()
    await print_document(session, backend, await everything(backend, await backend.call("find", ref=ref)))
    return Code.DONE


async def everything(backend: Backend, run: str) -> dict[str, Any]:
    """Returns a run as `show` has it, with the whole log, and its children as documents of their own."""
    document = run_document(backend, await backend.call("show", run=run))
    return {**document, "children": _children(backend, document["children"]), "log": old_lines(backend, run)}


async def _children(backend: Backend, found: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    async for child in found:
        yield await everything(backend, child["id"])
