"""Frames: four bytes of length, then that many bytes of payload. The size is checked before anything is kept for it.

Both the client's socket and the workers' pipes speak in them; import-light, because the client is. On the socket a message that
is larger than a frame comes in pieces: frames that begin with `MORE`, and one with `LAST`, as no JSON does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from taskrun.model.codec import rebuild
from taskrun.model.errors import DaemonError, StepFailed
from taskrun.model.records import ErrorRecord

HEAD = struct.Struct(">I")
CLIENT_CAP = 16 * 1024 * 1024  # a request or an answer over the socket
PIECE = 4 * 1024 * 1024  # of a message that is larger than a frame
MORE, LAST = b"+", b"="
PIPE_CAP = 1024 * 1024 * 1024  # an attempt with all its recorded steps, to or from a worker


class FrameInvalid(DaemonError):
    """A peer sent something that is no frame, or one that is too large."""


def frame(payload: bytes, cap: int) -> bytes:
    """Returns `payload` with its length in front.

    Raises:
        FrameInvalid: it is larger than `cap`.
    """
    _check(len(payload), cap)
    return HEAD.pack(len(payload)) + payload


class Unframer:
    """Cuts a stream of bytes into payloads."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self._buffer = bytearray()

    @property
    def partial(self) -> int:
        """The bytes that there are of a frame that has not ended."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Takes what was received and yields the payloads that are complete; the cap may change from one to the next.

        Raises:
            FrameInvalid: a frame is announced that is larger than the cap; the stream is of no use any more.
        """
        buffer = self._buffer
        buffer += data
        at, end = 0, len(buffer)
        try:
            while end - at >= HEAD.size:
                (size,) = HEAD.unpack_from(buffer, at)
                _check(size, self.cap)
                start = at + HEAD.size
                if end - start < size:
                    break
                at = start + size
                yield bytes(memoryview(buffer)[start:at])
        finally:
            del buffer[:at]


def message_frames(payload: bytes) -> Iterator[bytes]:
    """Yields a message as frames: one, or the pieces of what is larger than that."""
    if len(payload) <= CLIENT_CAP:
        yield frame(payload, CLIENT_CAP)
        return
    for start in range(0, len(payload), PIECE):
        end = start + PIECE
        yield frame((MORE if end < len(payload) else LAST) + payload[start:end], CLIENT_CAP)


class Messages:
    """Cuts a stream of bytes into messages.

    Parameters:
        cap: of a frame.
        most: bytes of one message, None for no limit.
    """

    def __init__(self, cap: int, most: int | None = None) -> None:
        self.frames = Unframer(cap)
        self.most = most
        self._pieces: list[bytes] = []
        self._size = 0  # of the pieces

    @property
    def partial(self) -> int:
        """The bytes that there are of a message that has not ended."""
        return self.frames.partial + self._size

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Takes what was received and yields the messages that are complete.

        Raises:
            FrameInvalid: a frame or a message is larger than it may be; the stream is of no use any more.
        """
        for payload in self.frames.feed(data):
            if (message := self._join(payload)) is not None:
                yield message

    def _join(self, payload: bytes) -> bytes | None:
        if payload[:1] not in (MORE, LAST):
            return payload
        self._pieces.append(payload[1:])
        self._size += len(payload) - 1
        if self.most is not None:
            _check(self._size, self.most)
        if payload[:1] == MORE:
            return None
        pieces, self._pieces, self._size = self._pieces, [], 0
        return b"".join(pieces)


def _check(size: int, cap: int) -> None:
    if size > cap:
        raise FrameInvalid(f"a frame of {size:,} bytes is over the limit of {cap:,}")


def refusal(record: ErrorRecord) -> Exception:
    """Returns the error that the other side raised, as itself where it is one that this side knows."""
    error = rebuild(record, "")
    if isinstance(error, StepFailed) and record.type != "taskrun.StepFailed":
        return RuntimeError(f"{record.type}: {record.message}")
    return error
