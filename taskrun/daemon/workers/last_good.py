"""The last good source of each job file, in a file (0600) beside the journal.

Workers get it with their setup, for files that cannot be loaded any more. It outlives the daemon, so that a restart while a file
is broken takes no job away.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:  # commands read the file, and need nothing of the engine for that
    from taskrun.engine.messages import Description

logger = logging.getLogger(__name__)


def read_last_good(path: Path) -> dict[str, str]:
    """Returns the last good sources by their paths; none if they were never written, or cannot be read."""
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    return {}


class LastGood:
    """The last good sources of one project's files, by path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.sources: Mapping[str, str] = read_last_good(path)

    def keep(self, found: Description) -> None:
        """Takes what was loaded; files that are broken keep their source, files that are gone do not."""
        named = {*found.files, *(str(problem.get("loading")) for problem in found.problems)}
        kept = {file: self.sources[file] for file in named if file in self.sources}
        sources = {**kept, **found.sources}
        if sources == self.sources:
            return
        self.sources = sources
        try:
            self._write(msgspec.json.encode(sources))
        except OSError as error:  # a full disk: it only matters if a file is broken when the daemon starts
            logger.warning("the last good source of job files could not be kept: %s", error)

    def _write(self, data: bytes) -> None:
        beside = self._path.with_name(self._path.name + ".new")
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        beside.replace(self._path)
