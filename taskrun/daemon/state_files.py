"""Whether a daemon still has its files: without them nobody reaches it, and what it records is lost.

The folder of a project is deleted while its daemon runs (`git clean -fdx`, a clone made anew, a container's volume), or the
journal alone. The daemon looks every second and before each client, and ends by itself.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from taskrun.daemon.file_identity import KnownFile
from taskrun.daemon.lock import Lock

logger = logging.getLogger(__name__)
LOG, MARK = "-wal", ".high"


class StateFiles:
    """The lock and the journal of one daemon, as they were when the journal had been opened.

    Parameters:
        journal: its path, or the address of a server, which nobody removes by accident.
    """

    def __init__(self, lock: Lock, journal: str) -> None:
        self._lock = lock
        self._path = None if "://" in journal else Path(journal).resolve()
        self._journal = None if self._path is None else KnownFile(self._path)
        self._log = self._beside(LOG)
        self._mark = self._beside(MARK)
        self._log_missing = False

    def loss(self) -> str:
        """Says what is gone; empty while all is there."""
        if not self._lock.in_place:
            return f"{self._lock.path} was removed"
        if self._journal is None or self._journal.in_place:
            return ""
        return f"{self._journal.path} was {'replaced by another file' if self._journal.path.exists() else 'removed'}"

    def loss_of_log(self) -> str:
        """Says that the write-ahead log is gone; to be asked every second, since a journal that is opened anew gets a new one."""
        if self._log is None or self._log.in_place:
            self._log_missing = False
            return ""
        missed, self._log_missing = self._log_missing, not self._log.path.exists()
        if not self._log_missing:
            self._log = self._beside(LOG)
        return f"{self._log.path} was removed" if self._log and missed and self._log_missing else ""

    def put_aside(self) -> None:
        """Puts aside what belongs to a journal that is gone, so that a new one can be made: its log must not be read into that.

        Only for the holder of the lock, and once the journal is closed. Nothing is deleted.
        """
        if self._journal is None or self._journal.in_place or not self._lock.in_place:
            return
        replaced = self._journal.path.exists()  # then the mark stays: another journal is held against it
        for file in (self._log,) if replaced else (self._log, self._mark):
            if file is not None and file.in_place:
                aside = file.path.with_name(f"removed-{time.time_ns()}-{file.path.name}")
                file.path.replace(aside)
                logger.warning("%s belongs to the journal that was removed: it is %s now", file.path, aside)

    def _beside(self, end: str) -> KnownFile | None:
        return None if self._path is None else KnownFile(Path(f"{self._path}{end}"))
