"""What a process prints: pipes read as they fill, decoded as they are read.

Nobody waits for the end of such a pipe, so it does not matter who still holds it open: when the process is gone, what
is in the pipe is read and that is all. Unlike a file, a pipe makes a flood wait for its reader: `yes` filled 0.4 GB of
disk a second through a file, and none through a pipe. `command.py` and `pool.py` read with it.
"""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import Callable
from typing import Self

CHUNK = 32 * 1024  # read at once, small enough for the loop to stay lively under a flood
PIPE_LIMIT = 1024 * 1024  # more than any pipe holds
REST = 0.02  # seconds in which nothing is read when there is enough


class OutputPipe:
    """The read end of a pipe; `take` gets what arrives, and says whether that is enough for now. Closes as a context manager."""

    def __init__(self, take: Callable[[bytes], bool]) -> None:
        self._take = take
        self._rest: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._loop.add_reader(self._read_fd, self._read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def release(self) -> None:
        """Closes the write end here, once the process has its own."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def drain(self) -> None:
        """Takes what is in the pipe now, but no more than a pipe can hold if somebody goes on writing."""
        for _ in range(PIPE_LIMIT // CHUNK):
            if (data := self._receive()) is None:
                break
            self._take(data)

    def close(self) -> None:
        """Closes both ends."""
        self.release()
        if self._rest is not None:
            self._rest.cancel()
        if self._read_fd >= 0:
            self._loop.remove_reader(self._read_fd)
            os.close(self._read_fd)
            self._read_fd = -1

    def _read(self) -> None:
        """Takes one chunk; when that is enough, whoever writes has to wait."""
        if (data := self._receive()) is not None and self._take(data) and self._read_fd >= 0:
            self._loop.remove_reader(self._read_fd)
            self._rest = self._loop.call_later(REST, self._loop.add_reader, self._read_fd, self._read)

    def _receive(self) -> bytes | None:
        """The next chunk, None if there is none."""
        if self._read_fd < 0:
            return None
        try:
            data = os.read(self._read_fd, CHUNK)
        except BlockingIOError:
            return None
        if not data:
            self.close()
            return None
        return data


class Decoder:
    """Turns bytes into text, whatever they are and wherever they are cut."""

    def __init__(self, emit: Callable[[str], bool | None]) -> None:
        self._emit = emit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._ended = True  # the last line

    def feed(self, data: bytes) -> bool:
        """Takes the next bytes; says whether whoever gets the text has enough for now."""
        return self._hand_on(self._decoder.decode(data))

    def finish(self) -> None:
        """Hands on what is left, and ends the last line."""
        self._hand_on(self._decoder.decode(b"", final=True))
        self._decoder.reset()
        if not self._ended:
            self._hand_on("\n")

    def _hand_on(self, text: str) -> bool:
        if not text:
            return False
        self._ended = text.endswith("\n")
        return bool(self._emit(text))
