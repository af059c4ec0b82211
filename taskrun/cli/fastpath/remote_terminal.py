"""The terminal of a thin client, at the other end of the daemon's socket. Lives on the counter's event loop."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable
from pathlib import Path

from taskrun.cli.terminal import Facts, allows_colour, allows_utf8, number
from taskrun.daemon.command_protocol import (
    ERR,
    GIVEN,
    GIVEN_ALL,
    INTERRUPT,
    OUT,
    WANT_ALL,
    WANT_LINE,
    CommandRequest,
    framed,
)
from taskrun.model.errors import PayloadTooLarge

PIECE = 65536


class RemoteTerminal:
    """What a command does with a caller who is elsewhere.

    Parameters:
        say: sends a frame to the caller.
        most_input: bytes of standard input that are taken.
    """

    def __init__(self, order: CommandRequest, say: Callable[[bytes], None], most_input: int) -> None:
        self.facts = facts_of(order)
        self._order = order
        self._say = say
        self._most_input = most_input
        self._left = False
        self._unread = 0  # bytes of standard input that nobody has asked for yet
        self._heard: Callable[[], None] = _nothing
        self._given = asyncio.Queue[bytes]()

    # ---- what the command does

    def size(self) -> tuple[int, int]:
        """Returns columns and rows as they were when the command was typed."""
        columns, rows = self._order.size
        env = self.facts.env
        return columns or number(env.get("COLUMNS"), 80), rows or number(env.get("LINES"), 24)

    def out(self, text: str) -> None:
        """Writes data; raises BrokenPipeError when the caller is gone."""
        if self._left:
            raise BrokenPipeError
        self._write(OUT, text)

    def err(self, text: str) -> None:
        """Writes chatter."""
        self._write(ERR, text)

    async def read(self) -> str:
        """Returns all of the caller's standard input."""
        self._ask(WANT_ALL)
        pieces, size = list[bytes](), 0
        while piece := await self._next():
            pieces.append(piece)
            size += len(piece)
            if size > self._most_input:
                raise PayloadTooLarge(f"standard input is over the limit of {self._most_input:,} bytes")
        return b"".join(pieces).decode("utf-8", "replace")

    async def ask(self, question: str) -> str:
        """Asks on the caller's standard error."""
        self.err(question)
        self._ask(WANT_LINE)
        return (await self._next()).decode("utf-8", "replace").strip()

    def on_interrupt(self, heard: Callable[[], None]) -> None:
        """Calls `heard` at every Ctrl-C of the caller."""
        self._heard = heard

    # ---- what the caller does

    def take(self, kind: bytes, data: bytes) -> None:
        """Takes a frame; unknown ones are ignored."""
        if kind == INTERRUPT:
            self._heard()
        elif kind in (GIVEN, GIVEN_ALL):
            self._unread += len(data)
            if self._unread <= self._most_input + PIECE:  # what comes unasked is not kept for ever
                self._given.put_nowait(data)

    def leave(self) -> None:
        """The caller is gone; whatever the command still says is said to nobody."""
        self._left = True

    # ---- inside

    async def _next(self) -> bytes:
        piece = await self._given.get()
        self._unread -= len(piece)
        return piece

    def _ask(self, kind: bytes) -> None:
        self._say(framed(kind))

    def _write(self, kind: bytes, text: str) -> None:
        data = text.encode(self._order.encoding, "replace")
        for at in range(0, len(data), PIECE):
            self._say(framed(kind, data[at : at + PIECE]))


def facts_of(order: CommandRequest) -> Facts:
    """Returns what an order says of its caller; raises LookupError when it names an encoding that there is not."""
    in_tty, out_tty, err_tty = (tty == "1" for tty in order.ttys)
    return Facts(
        in_tty=in_tty,
        out_tty=out_tty,
        err_tty=err_tty,
        cursor=order.env.get("TERM", "dumb") != "dumb",
        colour=allows_colour(order.env),
        utf8=allows_utf8(order.env, codecs.lookup(order.encoding).name),
        cwd=Path(order.cwd),
        env=order.env,
        intent=order.intent,
    )


def _nothing() -> None:
    """Ctrl-C before the command is under way."""
