"""The caller's terminal: its properties, and the only way for a command to read, write and be told of Ctrl-C.

`LocalTerminal` is the terminal of this process; that of a thin client is in `fastpath`. Commands never use `sys.stdout`, signals
or the environment themselves.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TextIO

import msgspec

from taskrun.cli.exit_codes import Code, Stop
from taskrun.daemon.command_protocol import new_intent
from taskrun.processes.threads import in_thread


class Facts(msgspec.Struct, frozen=True):
    """What a command may know about its caller. `cursor`, `colour`, `utf8`: what the terminal and its user allow."""

    in_tty: bool = False
    out_tty: bool = False
    err_tty: bool = False
    cursor: bool = False  # whether a screen can be drawn over the one before
    colour: bool = False
    utf8: bool = True
    cwd: Path = msgspec.field(default_factory=Path.cwd)
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    # idempotency key of the one trigger that the command may make
    intent: str = msgspec.field(default_factory=new_intent)


class Terminal(Protocol):
    """What a command can do with its caller."""

    @property
    def facts(self) -> Facts:
        """Its properties, which do not change while the command runs."""
        ...

    def size(self) -> tuple[int, int]:
        """Returns columns and rows as they are now."""
        ...

    def out(self, text: str) -> None:
        """Writes data; raises BrokenPipeError when it is no longer read."""
        ...

    def err(self, text: str) -> None:
        """Writes messages for a person; never raises."""
        ...

    async def read(self) -> bytes:
        """Returns all of standard input, unchanged; raises Stop when it cannot be read."""
        ...

    async def ask(self, question: str) -> str:
        """Asks a question and returns one line."""
        ...

    def on_interrupt(self, heard: Callable[[], None]) -> None:
        """Calls `heard` on the event loop at every Ctrl-C from now on, and does nothing else then."""
        ...


class LocalTerminal:
    """The terminal of this process."""

    def __init__(self, intent: str) -> None:
        self._facts = facts_of(os.environ, intent)

    @property
    def facts(self) -> Facts:
        """Its properties, which do not change while the command runs."""
        return self._facts

    def size(self) -> tuple[int, int]:
        """Returns columns and rows of the screen, or 80 × 24."""
        for stream in (sys.stdout, sys.stderr, sys.stdin):
            try:
                columns, rows = os.get_terminal_size(stream.fileno())
            except (OSError, ValueError, AttributeError):
                continue
            if columns and rows:
                return columns, rows
        return number(self._facts.env.get("COLUMNS"), 80), number(self._facts.env.get("LINES"), 24)

    def out(self, text: str) -> None:
        """Writes to standard output at once."""
        try:
            _write(sys.stdout, text)
        except BrokenPipeError:
            _silence(sys.stdout)
            raise
        except OSError as error:
            _silence(sys.stdout)
            raise Stop(Code.FAULT, f"standard output: {error.strerror}") from None

    def err(self, text: str) -> None:
        """Writes to standard error at once, unless it is closed."""
        try:
            _write(sys.stderr, text)
        except OSError:
            _silence(sys.stderr)

    async def read(self) -> bytes:
        """Returns all of standard input, unchanged."""
        try:
            return await in_thread(_read_all)
        except OSError as error:
            raise Stop(Code.USAGE, f"standard input: {error.strerror}") from None

    async def ask(self, question: str) -> str:
        """Asks on standard error."""
        self.err(question)
        try:
            return (await in_thread(_read_some)).decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def on_interrupt(self, heard: Callable[[], None]) -> None:
        """Calls `heard` at SIGINT and at SIGTERM."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, heard)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked while this process was being prepared


def facts_of(env: Mapping[str, str], intent: str) -> Facts:
    """Returns the facts of this process's own terminal."""
    return Facts(
        in_tty=_is_tty(sys.stdin),
        out_tty=_is_tty(sys.stdout),
        err_tty=_is_tty(sys.stderr),
        cursor=env.get("TERM", "dumb") != "dumb",
        colour=allows_colour(env),
        utf8=allows_utf8(env, getattr(sys.stdout, "encoding", None) or "utf-8"),
        cwd=_folder(env),
        env=dict(env),
        intent=intent,
    )


def allows_colour(env: Mapping[str, str]) -> bool:
    """Whether the environment allows colour."""
    return not env.get("NO_COLOR") and env.get("TERM", "dumb") != "dumb"


def allows_utf8(env: Mapping[str, str], encoding: str) -> bool:
    """Whether the locale is a UTF-8 one. Python itself turns a plain C locale into UTF-8, so the environment decides too."""
    if not encoding.lower().replace("-", "").startswith("utf8"):
        return False
    locale = env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or "C.UTF-8"
    coerced = not env.get("LC_ALL") and env.get("LANG") in ("C", "POSIX")
    return ("utf" in locale.lower()) and not coerced


def _folder(env: Mapping[str, str]) -> Path:
    """Returns the current folder, or its former path when it was deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path(env.get("PWD", "/"))


def _is_tty(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # it was closed when this process began
        return
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


def _silence(stream: TextIO) -> None:
    """Redirects a stream that nobody reads to the null device, so that Python's own flush at exit does not fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, stream.fileno())
    except (OSError, ValueError):
        pass
    finally:
        os.close(null)


def _read_all() -> bytes:
    """Reads the descriptor itself: `sys.stdin` would hold a lock that the interpreter needs when it ends."""
    return b"".join(iter(_read_some, b""))


def _read_some() -> bytes:
    return os.read(0, 65536)


def number(text: str | None, default: int) -> int:
    """Returns a number of columns or rows from the environment."""
    return int(text) if text and text.isdigit() and int(text) > 0 else default
