"""Detects that a daemon's files are gone: without them nobody reaches it, and what it records is lost.

A project's folder, or the journal alone, may be deleted while its daemon runs (`git clean -fdx`, a fresh clone, a container's
volume). The daemon checks every second and before it accepts a client, and ends by itself.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from taskrun.daemon.file_identity import KnownFile
from taskrun.daemon.lock import Lock

logger = logging.getLogger(__name__)
WRITE_AHEAD_LOG, MARK = "-wal", ".high"


class StateFiles:
    """The lock and the journal of one daemon, as they were when the journal was opened.

    Parameters:
        journal: its path, or the address of a server, whose files are not checked.
    """

    def __init__(self, lock: Lock, journal: str) -> None:
        self._lock = lock
        self._path = None if "://" in journal else Path(journal).resolve()
        self._journal = None if self._path is None else KnownFile(self._path)
        self._log = self._beside(WRITE_AHEAD_LOG)
        self._mark = self._beside(MARK)
        self._log_missing = False

    def loss(self) -> str:
        """Says what is gone; empty while everything is there."""
        if not self._lock.in_place:
            return f"{self._lock.path} was removed"
        if self._journal is None or self._journal.in_place:
            return ""
        return f"{self._journal.path} was {'replaced by another file' if self._journal.path.exists() else 'removed'}"

    def loss_of_log(self) -> str:
        """Says that the write-ahead log is gone. To be called every second: a journal that is opened anew gets a new one."""
        if self._log is None or self._log.in_place:
            self._log_missing = False
            return ""
        missed_before, self._log_missing = self._log_missing, not self._log.path.exists()
        if not self._log_missing:
            self._log = self._beside(WRITE_AHEAD_LOG)
        return f"{self._log.path} was removed" if self._log and missed_before and self._log_missing else ""

    def set_aside(self) -> None:
        """Renames what belongs to a journal that is gone: its write-ahead log must not be read into a new journal.

        Only for the holder of the lock, once the journal is closed. Nothing is deleted.
        """
        if self._journal is None or self._journal.in_place or not self._lock.in_place:
            return
        replaced = self._journal.path.exists()  # then the mark stays: the other journal is compared with it
        for file in (self._log,) if replaced else (self._log, self._mark):
            if file is not None and file.in_place:
                aside = file.path.with_name(f"removed-{time.time_ns()}-{file.path.name}")
                file.path.replace(aside)
                logger.warning("%s belonged to the journal that was removed: renamed to %s", file.path, aside)

    def _beside(self, suffix: str) -> KnownFile | None:
        return None if self._path is None else KnownFile(Path(f"{self._path}{suffix}"))
