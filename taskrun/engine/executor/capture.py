"""Lets what is printed and logged inside handlers and steps land in their run's log.

While an executor lives, `sys.stdout` and `sys.stderr` are proxies that ask a context variable for the run of whoever prints.
Outside of runs everything goes where it always went. `log_records` does the same for `logging`, `thread_context` sees to it that
threads belong to the run that started them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, TextIO

from taskrun.engine.executor import child_output, log_records, thread_context
from taskrun.engine.executor.run_context import sink, target


class Stream:
    """Stands for stdout or stderr. Inside of runs it never raises for what happens to text on its way.

    Parameters:
        echo: whether what runs print goes to the real stream as well.
    """

    def __init__(self, name: str, real: TextIO, echo: bool) -> None:
        self.real = real
        self.buffer = _Bytes(self)
        self.closed = False  # always: all code of the process shares it
        self._name = name
        self._echo = echo

    def write(self, text: str) -> int:
        """Writes text."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        to = target()
        if to is None:
            return self.real.write(text)
        to.write(self._name, text)
        if self._echo:
            self._show(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes the real stream, which somebody may have closed."""
        with contextlib.suppress(ValueError, OSError):
            self.real.flush()

    def close(self) -> None:
        """Stays open: later runs print too."""
        self.flush()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def _show(self, text: str) -> None:
        token = sink.set(None)  # the real one may be a user's that writes to this one again
        try:
            self.real.write(text)
        except UnicodeError:
            with contextlib.suppress(Exception):
                self.real.write(text.encode("ascii", "backslashreplace").decode())
        except Exception:  # it was closed, or nobody reads it: no concern of whoever prints
            pass
        finally:
            sink.reset(token)


class _Bytes:
    """What `sys.stdout.buffer` is."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        """Writes bytes; inside of runs they are taken for UTF-8."""
        if target() is None:
            return self._stream.real.buffer.write(data)
        self._stream.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream.real.buffer, name)


class Capture:
    """Counts its users: with the first it begins, with the last it ends."""

    _users = 0
    _echo = False
    _streams: ClassVar[dict[str, Stream]] = {}

    @classmethod
    def install(cls, echo: bool) -> None:
        """Begins to capture.

        Parameters:
            echo: what runs print is shown as well: the process is the user's. Else it is a worker, where what the jobs' code
                does to streams and logging lasts no longer than to the next attempt.
        """
        cls._users += 1
        cls._echo = cls._echo or echo
        log_records.begin(worker=not cls._echo)
        thread_context.begin()
        if not cls._echo:
            child_output.begin()
        cls.refresh()

    @classmethod
    def refresh(cls) -> None:
        """Puts back what somebody has replaced since (user code, or a test runner): called per attempt."""
        for name in ("stdout", "stderr"):
            current = getattr(sys, name)
            if isinstance(current, Stream):
                continue
            if name not in cls._streams or (cls._echo and current is not None):
                real = current or Path(os.devnull).open("w")  # noqa: SIM115 - it stands for a stream that is None
                cls._streams[name] = Stream(name, real, cls._echo)
            setattr(sys, name, cls._streams[name])
        log_records.put_back()

    @classmethod
    def remove(cls) -> None:
        """Ends capturing with the last user."""
        cls._users -= 1
        if cls._users:
            return
        for name in ("stdout", "stderr"):
            if isinstance(current := getattr(sys, name), Stream):
                setattr(sys, name, current.real)
        cls._streams.clear()
        cls._echo = False
        log_records.end()
        child_output.end()
