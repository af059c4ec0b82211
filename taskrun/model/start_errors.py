"""What keeps a command from starting, told as a shell tells it: it is not found (code 127), or cannot be executed (code 126)."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from taskrun.model.errors import CommandFailed

NOT_FOUND, NOT_EXECUTABLE = 127, 126
_REFUSED = {
    errno.EACCES: "permission denied",
    errno.ENOEXEC: "neither a program nor a script that begins with #!",
    errno.E2BIG: "its arguments are too long",
}
_FOLDERS = {
    errno.ENOENT: "there is no folder {}",
    errno.ENOTDIR: "{} is not a folder",
    errno.EACCES: "the folder {} cannot be entered: permission denied",
}


@contextmanager
def plain_start_errors(
    command: str | Sequence[str], cwd: str | os.PathLike[str] | None, env: Mapping[str, str] | None
) -> Iterator[None]:
    """Tells plainly why a command could not be started.

    Raises:
        CommandFailed: there is no such program, or it cannot be executed.
        OSError: its folder is not there, or something else is wrong.
    """
    try:
        yield
    except OSError as error:
        raise _told(command, os.fspath(cwd or "."), {**os.environ, **(env or {})}, error) from None


def _told(command: str | Sequence[str], cwd: str, env: Mapping[str, str], error: OSError) -> Exception:
    program = "/bin/sh" if isinstance(command, str) else os.fspath(command[0])
    number = error.errno or 0
    named = os.fspath(error.filename or "")
    if named in (cwd, os.path.abspath(cwd)) and number in _FOLDERS:  # noqa: PTH100
        return type(error)(_FOLDERS[number].format(named))
    if named != program:
        return error
    shown = command if isinstance(command, str) else " ".join(command)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return CommandFailed(shown, NOT_FOUND, stderr=f"{program}: {_what_is_missing(program, cwd, env)}")
    if number in _REFUSED:
        folder = Path(cwd, program).is_dir()
        return CommandFailed(shown, NOT_EXECUTABLE, stderr=f"{program}: {'a folder' if folder else _REFUSED[number]}")
    return error


def _what_is_missing(program: str, cwd: str, env: Mapping[str, str]) -> str:
    """Returns what is not there: the program, or the one that its first line names."""
    found = Path(cwd, program) if "/" in program else shutil.which(program, path=env.get("PATH"))
    if found is not None and os.path.isfile(found):  # noqa: PTH113
        return "the program that its first line names is not there"
    return "no such file" if "/" in program else "command not found"
