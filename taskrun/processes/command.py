"""Runs the command of a `shell` step and hands on what it prints. The executor calls it, once per attempt."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

from taskrun.processes.excerpt import KEEP, Excerpt
from taskrun.processes.output import Decoder, OutputPipe
from taskrun.processes.process import Process

OnText = Callable[[str, str], bool | None]  # stream and text; whether that is enough for now


class CommandResult(NamedTuple):
    """The end of a command: its exit code, negative for a signal, and at most 1 MB of each stream."""

    code: int
    stdout: str
    stderr: str


class Capture(OutputPipe):
    """One output stream of a command: its text goes on at once, an excerpt stays."""

    def __init__(self, stream: str, on_text: OnText) -> None:
        self.excerpt = Excerpt(KEEP)
        self._decoder = Decoder(lambda text: on_text(stream, text))
        super().__init__(self._arrived)

    def finish(self) -> None:
        """Hands on what is left when the command is gone."""
        self.drain()
        self._decoder.finish()

    def _arrived(self, data: bytes) -> bool:
        self.excerpt.add(data)
        return self._decoder.feed(data)


async def run_command(
    command: str | Sequence[str],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes | None = None,
    on_text: OnText,
    grace: float,
    lock_fd: int | None = None,
) -> CommandResult:
    """Runs a command to its end; nothing that it started is left then, not even in the background.

    A cancel sends TERM to its process group, KILL after `grace` seconds, and goes on when all is gone.

    Parameters:
        command: a string goes to `/bin/sh`, a list does not.
        env: added to this process's environment.
        stdin: what it reads; nothing, if absent.
        on_text: gets the stream's name and text as it comes, whole lines or not; the last line is ended.
        lock_fd: the engine's liveness lock, if it has one.
    Raises:
        OSError: it could not be started (`FileNotFoundError`: no such program, or no such `cwd`).
    """
    with ExitStack() as stack:
        out, err = (stack.enter_context(Capture(stream, on_text)) for stream in ("stdout", "stderr"))
        source = stack.enter_context(stdin_file(stdin))
        stdio = (source.fileno(), out.write_fd, err.write_fd)
        process = Process.start(words(command), stdio=stdio, cwd=cwd, env=env, lock_fd=lock_fd)
        out.release()
        err.release()
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await process.end(grace)
            raise
        finally:
            out.finish()
            err.finish()
        return CommandResult(code, out.excerpt.text(), err.excerpt.text())


def words(command: str | Sequence[str]) -> list[str]:
    """Returns the program and its arguments."""
    if isinstance(command, str):
        option = command[:1] in ("-", "+")  # as the shell would take it
        return ["/bin/sh", "-c", f" {command}" if option else command]
    if not command:
        raise ValueError("a command needs at least the name of a program")
    return [os.fspath(word) for word in command]


def stdin_file(text: str | bytes | None) -> IO[bytes]:
    """Returns a file to read `text` from; a pipe would need somebody to fill it."""
    if text is None:
        return Path(os.devnull).open("rb")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(text.encode() if isinstance(text, str) else text)
    file.seek(0)
    return file
