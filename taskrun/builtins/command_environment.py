"""The environment of a command job: variables of a file, of the table, and what taskrun tells of the run."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from taskrun.declarations.calls import Current
from taskrun.model.byte_escapes import restored
from taskrun.model.codec import encode
from taskrun.model.errors import DefinitionError

MOST_IN_VARIABLE = 100_000  # bytes of an input; the kernel takes 128 KB


def read_env_file(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of a file as `docker run --env-file` reads it: `NAME=value`, taken as it is, to the line's end.

    A name alone takes its value from `environ`, where it has one. Blank lines and those that begin with `#` are left out.

    Raises:
        DefinitionError: the file cannot be read, or a line is neither.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DefinitionError(f"env_file {path} cannot be read: {error.strerror}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):  # nothing else ends a line: a value may hold U+2028
        stripped = line.removesuffix("\r").lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        name, assigned, value = stripped.partition("=")
        if not name or any(letter.isspace() for letter in name) or "\0" in stripped:
            raise DefinitionError(f"env_file {path}, line {number}: expected NAME=value or NAME")
        if assigned:
            found[name] = value
        elif name in environ:
            found[name] = environ[name]
    return found


@contextmanager
def run_variables(run: Current) -> Iterator[dict[str, str]]:
    """Yields what a command is told of its run. A large input is in a file, which goes when the attempt has ended.

    When the attempt is only taken down, since its worker ends, the file stays: the command may go on, and a replay needs it.
    """
    found = {"TASKRUN_RUN": run.run_id, "TASKRUN_JOB": run.job, "TASKRUN_ATTEMPT": str(run.attempt)}
    if run.slot is not None:
        found["TASKRUN_SLOT"] = run.slot.isoformat()
    text = restored(encode(run.input, "input"))
    if len(os.fsencode(text)) <= MOST_IN_VARIABLE:
        yield found | {"TASKRUN_INPUT": text}
        return
    file = _private_folder() / f"{run.run_id}.json"
    _write(file, text)
    try:
        yield found | {"TASKRUN_INPUT_FILE": str(file)}
    except (Exception, asyncio.CancelledError):
        file.unlink(missing_ok=True)
        raise
    file.unlink(missing_ok=True)


def _private_folder() -> Path:
    """Returns a folder of this user alone."""
    folder = Path(tempfile.gettempdir()) / f"taskrun-inputs-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise PermissionError(f"{folder} must be a folder of this user alone")
    return folder


def _write(file: Path, text: str) -> None:
    draft = file.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(os.fsencode(text))
    draft.replace(file)
