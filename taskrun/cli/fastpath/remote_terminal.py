"""The terminal of a thin client, at the other end of the daemon's socket. Belongs to the event loop of the command thread."""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import Callable
from pathlib import Path

from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.terminal import Facts, allows_colour, allows_utf8, number
from taskrun.daemon.command_protocol import (
    ERR,
    GIVEN,
    GIVEN_ALL,
    INTERRUPT,
    OUT,
    UNREADABLE,
    WANT_ALL,
    WANT_LINE,
    CommandRequest,
)
from taskrun.model.errors import PayloadTooLarge

PIECE = 65536


class RemoteTerminal:
    """A `Terminal` whose reads and writes are frames.

    Parameters:
        send: sends a frame's payload to the thin client.
        most_input: bytes of standard input that are taken.
    """

    def __init__(self, request: CommandRequest, send: Callable[[bytes], None], most_input: int) -> None:
        self.facts = facts_of(request)
        self._request = request
        self._send = send
        self._most_input = most_input
        self._closed = False
        self._unread = 0  # bytes of standard input that no command has asked for yet
        self._interrupted: Callable[[], None] = _ignore
        self._given = asyncio.Queue[bytes | Stop]()

    # ---- used by the command

    def size(self) -> tuple[int, int]:
        """Returns columns and rows as they were when the command was typed."""
        columns, rows = self._request.size
        env = self.facts.env
        return columns or number(env.get("COLUMNS"), 80), rows or number(env.get("LINES"), 24)

    def out(self, text: str) -> None:
        """Writes data; raises BrokenPipeError when the caller is gone."""
        if self._closed:
            raise BrokenPipeError
        self._write(OUT, text)

    def err(self, text: str) -> None:
        """Writes messages for a person."""
        self._write(ERR, text)

    async def read(self) -> bytes:
        """Returns all of the caller's standard input, unchanged."""
        self._send(WANT_ALL)
        pieces, size = list[bytes](), 0
        while piece := await self._next():
            pieces.append(piece)
            size += len(piece)
            if size > self._most_input:
                raise PayloadTooLarge(f"standard input is over the limit of {self._most_input:,} bytes")
        return b"".join(pieces)

    async def ask(self, question: str) -> str:
        """Asks on the caller's standard error."""
        self.err(question)
        self._send(WANT_LINE)
        try:
            return (await self._next()).decode("utf-8", "replace").strip()
        except Stop:
            return ""

    def on_interrupt(self, heard: Callable[[], None]) -> None:
        """Calls `heard` at every Ctrl-C of the caller."""
        self._interrupted = heard

    # ---- used by the thin client's connection

    def receive(self, kind: bytes, data: bytes) -> None:
        """Takes a frame; unknown kinds are ignored."""
        if kind == INTERRUPT:
            self._interrupted()
        elif kind in (GIVEN, GIVEN_ALL, UNREADABLE):
            self._unread += len(data)
            if self._unread <= self._most_input + PIECE:  # what comes unasked must not fill the memory
                self._given.put_nowait(_unreadable(data) if kind == UNREADABLE else data)

    def close(self) -> None:
        """Takes note that the caller is gone: what the command still writes reaches nobody."""
        self._closed = True

    async def _next(self) -> bytes:
        piece = await self._given.get()
        if isinstance(piece, Stop):
            raise piece
        self._unread -= len(piece)
        return piece

    def _write(self, kind: bytes, text: str) -> None:
        data = text.encode(self._request.encoding, "replace")
        for at in range(0, len(data), PIECE):
            self._send(kind + data[at : at + PIECE])


def facts_of(request: CommandRequest) -> Facts:
    """Returns what a request tells of its caller; raises LookupError when its encoding does not exist here."""
    in_tty, out_tty, err_tty = (tty == "1" for tty in request.ttys)
    return Facts(
        in_tty=in_tty,
        out_tty=out_tty,
        err_tty=err_tty,
        cursor=request.env.get("TERM", "dumb") != "dumb",
        colour=allows_colour(request.env),
        utf8=allows_utf8(request.env, codecs.lookup(request.encoding).name),
        cwd=Path(request.cwd),
        env=request.env,
        intent=request.intent,
    )


def _unreadable(why: bytes) -> Stop:
    return Stop(Code.USAGE, f"standard input: {os.fsdecode(why)}")


def _ignore() -> None:
    """Ctrl-C before the command has begun."""
