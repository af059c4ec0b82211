"""An excerpt of what a process prints: head and tail of a stream. Standard library only, since supervisors use it too."""

from __future__ import annotations

import json

KEEP = 1_000_000  # bytes of each stream that the result of a command holds


class Excerpt:
    """Keeps the head and the tail of a stream, with a marker between them: at most `limit` bytes, also as they are recorded."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2 - 100  # room for the marker
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def add(self, data: bytes) -> None:
        """Takes the next bytes."""
        self._total += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    def text(self) -> str:
        """What is kept, with a marker that says how many bytes were left out."""
        if not self._total:
            return ""
        head, tail = bytes(self._head), bytes(self._tail[-self._half :])
        complete = self._total == len(head) + len(tail)
        if complete and _recorded_size(head + tail) <= 2 * self._half:
            return decoded(head + tail)
        while _recorded_size(head) > self._half:
            head = head[: len(head) // 2]
        while _recorded_size(tail) > self._half:
            tail = tail[len(tail) - len(tail) // 2 :]
        left_out = self._total - len(head) - len(tail)
        return f"{decoded(head)}\n… {left_out} bytes left out …\n{decoded(tail)}"


def _recorded_size(data: bytes) -> int:
    """Returns the bytes that an output takes in a record: a control character six for one, as JSON has it."""
    return len(json.dumps(decoded(data), ensure_ascii=False).encode()) - 2  # the quotes


def decoded(data: bytes | bytearray) -> str:
    """The text of bytes that may be anything."""
    return data.decode(errors="replace")
