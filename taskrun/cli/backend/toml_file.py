"""Tables that taskrun appends to `taskrun.toml`: what is there stays as it is, comments too, and nothing is written unchecked."""

from __future__ import annotations

import asyncio
import os
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from taskrun.cli.exit_codes import Code, Stop
from taskrun.daemon.lock import PAUSE, Lock
from taskrun.daemon.paths import daemon_paths
from taskrun.model.config import Config
from taskrun.model.errors import ConfigError
from taskrun.rules.schedule_tables import read_config

PATIENCE = 30.0  # seconds for others to have written


@asynccontextmanager
async def locked(config: Config) -> AsyncIterator[None]:
    """Keeps other commands from writing to a project's `taskrun.toml` meanwhile: each appends to what it has read.

    Raises:
        Stop: another one does not come to its end.
    """
    path = daemon_paths(config).writing
    for _ in range(round(PATIENCE / PAUSE)):
        if (lock := Lock.take(path, tries=1)) is not None:
            break
        await asyncio.sleep(PAUSE)
    else:
        raise Stop(Code.REFUSED, f"{config.path}: another command is writing to it", hint="nothing was written")
    try:
        yield
    finally:
        lock.release()


class Appended(NamedTuple):
    """What a file held before and after it was appended to."""

    file: Path
    before: bytes
    after: bytes

    def undo(self) -> bool:
        """Writes back what the file held; returns False, and leaves it, where somebody has changed it meanwhile."""
        if self.file.read_bytes() != self.after:
            return False
        draft = _draft(self.file)
        _write(draft, self.before, self.file.stat().st_mode)
        draft.replace(self.file)
        return True


def append_table(
    path: Path, name: str, table: dict[str, Any], environ: Mapping[str, str], check: Callable[[Config], None]
) -> Appended:
    """Appends `[[name]]` to a file that is `locked`.

    Parameters:
        check: of the configuration as it would be; raises ConfigError.

    Raises:
        Stop: it does not fit; nothing was written.
    """
    return _append(path, _written(name, table), name, environ, check)


def append_job(path: Path, name: str, table: dict[str, Any], environ: Mapping[str, str]) -> Appended:
    """Appends `[jobs.NAME]` to a file that is `locked`.

    Raises:
        Stop: it does not fit; nothing was written.
    """
    return _append(path, tomli_w.dumps({"jobs": {name: table}}), "jobs", environ, lambda _: None)


def _append(
    path: Path, written: str, name: str, environ: Mapping[str, str], check: Callable[[Config], None]
) -> Appended:
    file = path.resolve()
    before = file.read_bytes()
    text = before.decode("utf-8-sig").rstrip("\n")
    draft = _draft(file)
    try:
        appended = f"{text}\n\n{written}".lstrip("\n")
        _refuse_inline(name, appended)
        after = appended.encode()
        _write(draft, after, file.stat().st_mode)
        check(read_config(draft, environ))
        draft.replace(file)
    except ConfigError as error:
        hint = "nothing was written"
        raise Stop(Code.USAGE, str(error).replace(str(draft), str(path)), hint=hint, kind="ConfigError") from None
    except UnicodeEncodeError:
        raise Stop(Code.USAGE, "bytes that are no UTF-8 cannot be written to a file of TOML") from None
    except OSError as error:
        raise Stop(Code.USAGE, f"{path}: cannot be written: {error.strerror}", kind="ConfigError") from None
    finally:
        draft.unlink(missing_ok=True)
    return Appended(file, before, after)


def _draft(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}.tmp")


def _written(name: str, table: dict[str, Any]) -> str:
    """Returns a table under a header of its own, with its inner tables after it."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    try:
        return f"[[{name}]]\n{tomli_w.dumps(plain)}" + (f"\n{tomli_w.dumps({name: inner})}" if inner else "")
    except TypeError:
        problem = "null cannot be written to a file of TOML: leave the field out"
        raise Stop(Code.USAGE, problem, kind="InputInvalid") from None


def _refuse_inline(name: str, text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        problem = f"{name} is written as a list in one place: write each as [[{name}]], then more can be appended"
        raise Stop(Code.USAGE, problem, kind="ConfigError") from None


def _write(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(handle, mode & 0o777)
        os.fsync(handle)
