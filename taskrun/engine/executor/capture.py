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
        self.real = real
        self._echo = echo

    def write(self, text: str) -> int:
        target = sink.get()
        if target is None:
            return self.real.write(text)
        target.write(self._name, text)
        if self._echo:
            self.real.write(text)
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


class _Records(logging.Handler):
    """Sends log records of runs to their log."""

    def emit(self, record: logging.LogRecord) -> None:
        target = sink.get()
        if target is not None and not record.name.startswith("taskrun.engine"):
            target.write("log", f"{record.levelname} {self.format(record)}\n")


class Capture:
    """Counts its users: with the first it begins, with the last it ends."""

    _users = 0
    _echo = False
    _records = _Records()

    @classmethod
    def install(cls, echo: bool) -> None:
        """Begins to capture; with `echo` what runs print is shown as well."""
        cls._users += 1
        cls._echo = cls._echo or echo
        cls.refresh()
        root = logging.getLogger()
        if cls._records not in root.handlers:
            root.addHandler(cls._records)
        logger = logging.getLogger("taskrun.run")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.DEBUG)

    @classmethod
    def refresh(cls) -> None:
        """Puts the proxies back where somebody has replaced the streams since (a test runner does): called per attempt."""
        if not isinstance(sys.stdout, _Stream):
            sys.stdout = cast(TextIO, _Stream("stdout", sys.stdout, cls._echo))
        if not isinstance(sys.stderr, _Stream):
            sys.stderr = cast(TextIO, _Stream("stderr", sys.stderr, cls._echo))

    @classmethod
    def remove(cls) -> None:
        """Ends capturing with the last user."""
        cls._users -= 1
        if cls._users:
            return
        if isinstance(sys.stdout, _Stream):
            sys.stdout = sys.stdout.real
        if isinstance(sys.stderr, _Stream):
            sys.stderr = sys.stderr.real
        cls._echo = False
        logging.getLogger().removeHandler(cls._records)
