"""Lets `print` and stdlib `logging` inside handlers and steps land in their run's log.

Installed while an executor lives: `sys.stdout` and `sys.stderr` are replaced by proxies that ask a context variable for the
run of whoever prints, and a handler is added to the root logger. Outside of runs everything goes where it always went.
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import Protocol, TextIO, cast


class Sink(Protocol):
    """Where a run's lines go; called from any thread."""

    def write(self, stream: str, text: str, step: str | None = None) -> None:
        """Takes text, not always whole lines; without `step` it is of the step that the caller is in, if any."""
        ...


sink: ContextVar[Sink | None] = ContextVar("taskrun-sink", default=None)


class _Stream:
    """Stands for stdout or stderr."""

    def __init__(self, name: str, real: TextIO, echo: bool) -> None:
        self._name = name
        self._real = real
        self._echo = echo

    def write(self, text: str) -> int:
        target = sink.get()
        if target is None:
            return self._real.write(text)
        target.write(self._name, text)
        if self._echo:
            self._real.write(text)
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


class _Records(logging.Handler):
    """Sends log records of runs to their log."""

    def emit(self, record: logging.LogRecord) -> None:
        target = sink.get()
        if target is not None and not record.name.startswith("taskrun.engine"):
            target.write("log", f"{record.levelname} {self.format(record)}\n")


class Capture:
    """Counts its users: the first installs, the last removes."""

    _users = 0
    _real: tuple[TextIO, TextIO] | None = None
    _records = _Records()
    _level: int | None = None

    @classmethod
    def install(cls, echo: bool) -> None:
        """Begins to capture; with `echo` what runs print is shown as well."""
        cls._users += 1
        if cls._users > 1:
            return
        cls._real = (sys.stdout, sys.stderr)
        sys.stdout = cast(TextIO, _Stream("stdout", sys.stdout, echo))
        sys.stderr = cast(TextIO, _Stream("stderr", sys.stderr, echo))
        root = logging.getLogger()
        root.addHandler(cls._records)
        logger = logging.getLogger("taskrun.run")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.DEBUG)

    @classmethod
    def remove(cls) -> None:
        """Ends capturing with the last user, unless somebody else has replaced the streams since."""
        cls._users -= 1
        if cls._users or cls._real is None:
            return
        if isinstance(sys.stdout, _Stream):
            sys.stdout = cls._real[0]
        if isinstance(sys.stderr, _Stream):
            sys.stderr = cls._real[1]
        logging.getLogger().removeHandler(cls._records)
