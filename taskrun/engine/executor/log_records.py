"""Records of `logging` made inside of runs land in the run's log, whatever is configured; a bad logging call harms no run.

A handler on the root logger would be lost to any configuration that user code makes, and would keep `basicConfig` from doing
anything. So two methods of `logging.Logger` are wrapped: the one that all calls go through, and the one that hands a record
to the handlers. Outside of runs they do what they always did.
"""

from __future__ import annotations

import logging
from typing import Any

from taskrun.engine.executor.run_context import Sink, sink, target
from taskrun.model.errors import Unwind, single_errors

RUN = "taskrun.run"  # the logger that users import as `log`
PROBE = "taskrun-probe"  # a logger that no configuration names: disabled with all such
_FORMATTER = logging.Formatter()
_log = logging.Logger._log
_call_handlers = logging.Logger.callHandlers


class _Silence:
    """Discards what handlers print of a record that the run's log has already."""

    closed = False
    full = False

    def write(self, stream: str, text: str, step: str | None = None) -> None:
        """Drops it."""


_SILENCE = _Silence()


def guarded_log(self: logging.Logger, level: int, msg: object, args: Any, *rest: Any, **kwargs: Any) -> None:
    """Makes a logging call. One that is wrong fails no job: the run's log says what was wrong with it."""
    to = target()
    if to is None:
        _log(self, level, msg, args, *rest, **kwargs)
        return
    try:
        _log(self, level, msg, args, *rest, **kwargs)
    except Exception as error:
        to.write("log", f"{logging.getLevelName(level)} {_text(msg)} (a bad logging call: {_told(error)})\n")


def recorded_call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
    """Writes a record to the run's log, then hands it to the handlers."""
    to = target()
    error = record.exc_info[1] if record.exc_info else None
    if record.name == "asyncio" and error is not None and all(isinstance(one, Unwind) for one in single_errors(error)):
        return  # a task that nobody awaits was taken down with its attempt: that is no error
    if to is None:
        _call_handlers(self, record)
    elif _is_of_no_run(str(record.name)):
        _elsewhere(self, record)
    else:
        to.write("log", f"{record.levelname} {_formatted(record)}\n")
        _hand_on(self, record, to)


def _is_of_no_run(name: str) -> bool:
    return name == "asyncio" or (name.startswith("taskrun.") and name != RUN)


def _hand_on(logger: logging.Logger, record: logging.LogRecord, to: Sink) -> None:
    """Calls the handlers; what they print on this process's streams is not logged twice."""
    if not logger.hasHandlers():  # else logging would print it as a last resort
        return
    token = sink.set(_SILENCE)
    try:
        _call_handlers(logger, record)
    except Exception as error:
        to.write("system", f"a handler of logging failed: {_told(error)}\n")
    finally:
        sink.reset(token)


def _elsewhere(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Hands on a message of taskrun or asyncio, which does not belong to the run that happens to execute.

    asyncio reports lost errors whenever the garbage collector finds them.
    """
    token = sink.set(None)
    try:
        _call_handlers(logger, record)
    finally:
        sink.reset(token)


def _formatted(record: logging.LogRecord) -> str:
    try:
        return _FORMATTER.format(record)
    except Exception as error:
        args = ", ".join(map(_text, record.args if isinstance(record.args, tuple) else [record.args]))
        return f"{_text(record.msg)} (not formatted: {_told(error)}; its arguments: {args})"


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} whose str() raised {type(error).__name__}>"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {_text(error)}"


# ---- what is put back


class _Settings:
    """How logging stood before jobs were executed."""

    def __init__(self, worker: bool) -> None:
        self._worker = worker
        self._root = logging.getLogger()
        self._log = logging.getLogger(RUN)
        self._probe = logging.getLogger(PROBE)
        self._log.disabled = self._probe.disabled = False
        self._level = self._root.level
        self._off_below = self._root.manager.disable
        self._off = {name for name, logger in _loggers() if logger.disabled}

    def put_back(self) -> None:
        """Undoes what a configuration made inside a job would do to later runs."""
        if self._probe.disabled or self._log.disabled:
            for name, logger in _loggers():
                logger.disabled = name in self._off
        if self._log.level == logging.NOTSET:
            self._log.setLevel(logging.DEBUG)
        if self._worker and self._root.level != self._level:
            self._root.setLevel(self._level)
        if self._worker and self._root.manager.disable != self._off_below:
            logging.disable(self._off_below)


def _loggers() -> list[tuple[str, logging.Logger]]:
    known = logging.getLogger().manager.loggerDict
    return [(name, logger) for name, logger in list(known.items()) if isinstance(logger, logging.Logger)]


_settings: _Settings | None = None


def begin(worker: bool) -> None:
    """Begins to record. In a worker the root logger takes INFO and up, unless the jobs' code sets another level."""
    global _settings
    if logging.Logger._log is _log:
        logging.Logger._log = guarded_log  # type: ignore[method-assign]
        logging.Logger.callHandlers = recorded_call_handlers  # type: ignore[method-assign]
    if worker and _settings is None and logging.getLogger().level == logging.WARNING:
        logging.getLogger().setLevel(logging.INFO)
    if worker or _settings is None:  # a worker begins again when its jobs are loaded
        _settings = _Settings(worker)


def put_back() -> None:
    """Keeps the logging configuration of one job from silencing later runs."""
    if _settings is not None:
        _settings.put_back()


def end() -> None:
    """Records no more."""
    global _settings
    _settings = None
    if logging.Logger._log is guarded_log:
        logging.Logger._log = _log  # type: ignore[method-assign]
    if logging.Logger.callHandlers is recorded_call_handlers:
        logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign]


def _as_of_logging(fn: Any) -> None:
    """Makes logging skip our frames, like its own, when it looks for the caller of a logging call."""
    fn.__code__ = fn.__code__.replace(co_filename=logging.addLevelName.__code__.co_filename)


for _wrapper in (guarded_log, recorded_call_handlers, _hand_on, _elsewhere):
    _as_of_logging(_wrapper)
