"""What a process prints: pipes read as they fill, cut into lines.

Nobody waits for the end of such a pipe, so it does not matter who still holds it open: when the process is gone, what
is in the pipe is read and that is all. Unlike a file, a pipe makes a flood wait for its reader: `yes` filled 0.4 GB of
disk a second through a file, and none through a pipe. `command.py` and `pool.py` read with it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Self

CHUNK = 32 * 1024  # read at once, small enough for the loop to stay lively under a flood
PIPE_LIMIT = 1024 * 1024  # more than any pipe holds
LINE_LIMIT = 64 * 1024


class OutputPipe:
    """The read end of a pipe; `take` gets what arrives. A context manager that closes it."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._loop.add_reader(self._read_fd, self._read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def release(self) -> None:
        """Close the write end here, once the process has its own."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def drain(self) -> None:
        """Take what is in the pipe now, though not for ever if somebody goes on writing."""
        for _ in range(PIPE_LIMIT // CHUNK):
            if not self._read():
                break

    def close(self) -> None:
        """Close both ends."""
        self.release()
        if self._read_fd >= 0:
            self._loop.remove_reader(self._read_fd)
            os.close(self._read_fd)
            self._read_fd = -1

    def _read(self) -> bool:
        """Take one chunk; says whether there was one."""
        if self._read_fd < 0:
            return False
        try:
            data = os.read(self._read_fd, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        self._take(data)
        return True


class Lines:
    """Cuts bytes into lines of text at `\\n`, `\\r\\n` and, as progress displays want it, `\\r`.

    A long line comes in pieces of at most 64 KiB.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._rest = b""
        self._after_return = False  # a `\n` that comes next belongs to the `\r` before it

    def feed(self, data: bytes) -> None:
        """Take the next bytes and emit what is complete."""
        if not data:
            return
        if self._after_return and data.startswith(b"\n"):
            data = data[1:]
        self._after_return = data.endswith(b"\r")
        for piece in (self._rest + data).splitlines(keepends=True):
            self._rest = self._cut(piece)

    def flush(self) -> None:
        """Emit the unfinished last line, if there is one."""
        if self._rest:
            self._emit(decoded(self._rest))
        self._rest, self._after_return = b"", False

    def _cut(self, piece: bytes) -> bytes:
        """Emit a piece that is a whole line or too long; returns what is left of it."""
        line = piece.rstrip(b"\r\n")
        while len(line) > LINE_LIMIT:
            end = character_start(line, LINE_LIMIT)
            self._emit(decoded(line[:end]))
            line = line[end:]
        if piece[-1:] in b"\r\n":
            self._emit(decoded(line))
            return b""
        return line


class Excerpt:
    """Keeps the head and the tail of a stream, at most `limit` bytes with a marker between them."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2 - 100  # room for the marker
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self._total += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    def text(self) -> str:
        """What is kept, with a marker that says how many bytes were left out."""
        tail = bytes(self._tail[-self._half :])
        if self._total <= len(self._head) + len(tail):
            return decoded(self._head + tail)
        left_out = self._total - len(self._head) - len(tail)
        return f"{decoded(self._head)}\n… {left_out} bytes left out …\n{decoded(tail)}"


def decoded(data: bytes | bytearray) -> str:
    """The text of bytes that may be anything."""
    return data.decode(errors="replace")


def character_start(data: bytes, end: int) -> int:
    """The nearest place at or before `end` that cuts no UTF-8 character."""
    return next((at for at in range(end, end - 4, -1) if data[at] & 0xC0 != 0x80), end)
