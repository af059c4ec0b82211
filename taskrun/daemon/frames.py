"""Frames: four bytes of length, then that many bytes of payload. The size is checked before anything is kept for it.

Both the client's socket and the workers' pipes speak in them; import-light, because the client is.
"""

from __future__ import annotations

import struct

from taskrun.model.codec import rebuild
from taskrun.model.errors import DaemonError, StepFailed
from taskrun.model.records import ErrorRecord

HEAD = struct.Struct(">I")
CLIENT_CAP = 16 * 1024 * 1024  # a request or an answer over the socket
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
        self._cap = cap
        self._buffer = bytearray()

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Takes what was received and returns the payloads that are complete.

        Raises:
            FrameInvalid: a frame is announced that is larger than the cap; the stream is of no use any more.
        """
        buffer = self._buffer
        buffer += data
        payloads: list[bytes] = []
        at, end = 0, len(buffer)
        while end - at >= HEAD.size:
            (size,) = HEAD.unpack_from(buffer, at)
            _check(size, self._cap)
            start = at + HEAD.size
            if end - start < size:
                break
            at = start + size
            payloads.append(bytes(buffer[start:at]))
        del buffer[:at]
        return payloads


def _check(size: int, cap: int) -> None:
    if size > cap:
        raise FrameInvalid(f"a frame of {size:,} bytes is over the limit of {cap:,}")


def refusal(record: ErrorRecord) -> Exception:
    """Returns the error that the other side raised, as itself where it is one that this side knows."""
    error = rebuild(record, "")
    if isinstance(error, StepFailed) and record.type != "taskrun.StepFailed":
        return RuntimeError(f"{record.type}: {record.message}")
    return error
