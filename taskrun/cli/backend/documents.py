"""JSON documents that no single answer holds: long lists come page by page and large values piece by piece, printed as they come.

A document is plain data, a view whose large values are excerpts (`cut` names them), or a list of documents that comes as an
async iterator; a view may have such lists in place of its own.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from taskrun.cli.sanitize import safe_json, to_json
from taskrun.cli.session import Backend, KeptReader, Session
from taskrun.model.errors import DaemonError

BUFFER = 65_536  # characters that are printed at once
INDENT = 2  # columns, for a person
LISTS = ("steps", "children")


def run_document(backend: Backend, shown: dict[str, Any]) -> dict[str, Any]:
    """Returns all that `show --json` prints of a run that `show` has answered with."""
    lists = {name: _pages(backend, name, shown["id"], "n" if name == "steps" else "seq") for name in LISTS}
    return {name: item for name, item in {**shown, **lists}.items() if name != "steps_left_out"}


async def _pages(backend: Backend, op: str, run: str, cursor: str) -> AsyncIterator[dict[str, Any]]:
    after = 0
    while page := await backend.call(op, run=run, after=after):
        for one in page:
            yield one
        after = page[-1][cursor]


async def completed(backend: Backend, view: dict[str, Any]) -> dict[str, Any]:
    """Returns a run or a step with its values whole."""
    whole = {
        name: json.loads("".join([text async for text in _value(backend, view, name)])) for name in view.get("cut", ())
    }
    return {name: whole.get(name, item) for name, item in view.items() if name != "cut"}


class Completer:
    """Completes one view after another over one connection, and over another one after that was lost."""

    def __init__(self, session: Session) -> None:
        self._reader = KeptReader(session)

    async def completed(self, view: dict[str, Any]) -> dict[str, Any]:
        """Returns a run or a step with its values whole."""
        if self._reader.backend is not None:
            with suppress(DaemonError):
                async with self._reader.use() as backend:
                    return await completed(backend, view)
        async with self._reader.use() as backend:
            return await completed(backend, view)


async def _value(backend: Backend, view: dict[str, Any], field: str) -> AsyncIterator[str]:
    """Yields a value that is cut as JSON text, piece by piece."""
    owner = {"run": view["run"], "step": view["key"]} if "key" in view and "kind" in view else {"run": view["id"]}
    if field == "failures":
        yield to_json(await backend.call("failures", **owner))
        return
    start = 0
    while text := await backend.call("piece", **owner, field=field, start=start):
        yield text
        start += len(text)


async def print_document(session: Session, backend: Backend, document: Any) -> None:
    """Prints a document: indented for a person, on one line for a pipe."""
    printer = _Printer(session, backend)
    await printer.write(document, 0)
    printer.end()


class _Printer:
    def __init__(self, session: Session, backend: Backend) -> None:
        self._backend = backend
        self._out: Callable[[str], None] = session.data
        self._indent = INDENT if session.facts.out_tty else None
        self._ascii = not session.facts.utf8
        self._parts: list[str] = []
        self._size = 0

    async def write(self, document: Any, depth: int) -> None:
        if isinstance(document, AsyncIterator):
            await self._list(document, depth)
        elif isinstance(document, dict) and (document.get("cut") or _has_lists(document)):
            await self._object(document, depth)
        else:
            self._put(to_json(document, self._indent, self._ascii).replace("\n", self._line(depth)))

    def end(self) -> None:
        self._put("\n")
        self._flush()

    async def _list(self, items: AsyncIterator[Any], depth: int) -> None:
        self._put("[")
        count = 0
        async for item in items:
            self._put(self._between(count, depth + 1))
            await self.write(item, depth + 1)
            count += 1
        self._put(f"{self._line(depth) if count else ''}]")

    async def _object(self, view: dict[str, Any], depth: int) -> None:
        self._put("{")
        for count, name in enumerate(name for name in view if name != "cut"):
            self._put(f"{self._between(count, depth + 1)}{json.dumps(name)}: ")
            if name in view.get("cut", ()):
                async for text in _value(self._backend, view, name):
                    self._put(safe_json(text, self._ascii))
            else:
                await self.write(view[name], depth + 1)
        self._put(f"{self._line(depth)}}}")

    def _between(self, count: int, depth: int) -> str:
        return ("," if count else "") + (self._line(depth) or " " * bool(count))

    def _line(self, depth: int) -> str:
        return "" if self._indent is None else "\n" + " " * self._indent * depth

    def _put(self, text: str) -> None:
        self._parts.append(text)
        self._size += len(text)
        if self._size >= BUFFER:
            self._flush()

    def _flush(self) -> None:
        self._out("".join(self._parts))
        self._parts, self._size = [], 0


def _has_lists(view: dict[str, Any]) -> bool:
    return any(isinstance(item, AsyncIterator) for item in view.values())
