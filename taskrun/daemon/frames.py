"""Frames: four bytes of length, then that many bytes of payload. The size is checked before anything is kept for it.

Clients, thin clients and workers all send in them. It imports next to nothing, because a warm command pays for it. On the
clients' socket a message that is larger than a frame is sent in pieces: frames that begin with `MORE`, and one that begins
with `LAST`, as no JSON does.
"""

from __future__ import annotations

from _collections_abc import Iterator  # unlike `collections.abc`, every interpreter has loaded it

HEAD = 4  # bytes of a length
CLIENT_CAP = 16 * 1024 * 1024  # bytes of a frame over the clients' socket
PIECE = 4 * 1024 * 1024  # bytes of a piece of a message that is larger than a frame
MORE, LAST = b"+", b"="
PIPE_CAP = 1024 * 1024 * 1024  # bytes of a frame to or from a worker: an attempt with all its recorded steps


class FrameInvalid(ValueError):
    """A frame or a message is larger than it may be."""


def frame(payload: bytes, cap: int) -> bytes:
    """Returns `payload` with its length in front.

    Raises:
        FrameInvalid: it is larger than `cap`.
    """
    _check(len(payload), cap)
    return len(payload).to_bytes(HEAD, "big") + payload


class FrameReader:
    """Splits a stream of bytes into payloads."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self._buffer = bytearray()

    @property
    def partial(self) -> int:
        """The bytes received of a frame that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Takes received bytes and yields the payloads that are complete; the cap may change between two of them.

        Raises:
            FrameInvalid: a frame is announced that is larger than the cap; the rest of the stream cannot be read.
        """
        buffer = self._buffer
        buffer += data
        at, end = 0, len(buffer)
        try:
            while end - at >= HEAD:
                start = at + HEAD
                size = int.from_bytes(buffer[at:start], "big")
                _check(size, self.cap)
                if end - start < size:
                    break
                at = start + size
                yield bytes(memoryview(buffer)[start:at])
        finally:
            del buffer[:at]


def message_frames(payload: bytes) -> Iterator[bytes]:
    """Yields a message as frames: as one, or in pieces where it is larger."""
    if len(payload) <= CLIENT_CAP:
        yield frame(payload, CLIENT_CAP)
        return
    for start in range(0, len(payload), PIECE):
        end = start + PIECE
        yield frame((MORE if end < len(payload) else LAST) + payload[start:end], CLIENT_CAP)


class MessageReader:
    """Splits a stream of bytes into messages.

    Parameters:
        cap: bytes of one frame.
        most: bytes of one message, None for no limit.
    """

    def __init__(self, cap: int, most: int | None = None) -> None:
        self.frames = FrameReader(cap)
        self.most = most
        self._pieces: list[bytes] = []
        self._size = 0  # of the pieces

    @property
    def partial(self) -> int:
        """The bytes received of a message that is not complete."""
        return self.frames.partial + self._size

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Takes received bytes and yields the messages that are complete.

        Raises:
            FrameInvalid: a frame or a message is larger than it may be; the rest of the stream cannot be read.
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
