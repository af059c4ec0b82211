"""The files of a project's daemon: locks and log, in one folder beside the journal. Import-light, as the client is."""

from __future__ import annotations

from pathlib import Path

import msgspec

from taskrun.daemon.command_protocol import JOURNAL, LOCK, state_folder
from taskrun.model.config import Config
from taskrun.model.errors import DaemonError


class DaemonPaths(msgspec.Struct, frozen=True):
    """Where the files are. Those of two journals in one folder are told apart by their prefix."""

    folder: Path
    prefix: str = ""

    @property
    def lock(self) -> Path:
        """Held by the daemon as long as it lives."""
        return self.folder / f"{self.prefix}{LOCK}"

    @property
    def launch(self) -> Path:
        """Held by the process that starts a daemon, until it has started."""
        return self.folder / f"{self.prefix}launch.lock"

    @property
    def writing(self) -> Path:
        """Held by the command that writes to `taskrun.toml`."""
        return self.folder / f"{self.prefix}writing.lock"

    @property
    def log(self) -> Path:
        """The daemon's own log."""
        return self.folder / f"{self.prefix}daemon.log"

    @property
    def last_good(self) -> Path:
        """The last good source of each job file."""
        return self.folder / f"{self.prefix}last-good.json"

    @property
    def commands(self) -> Path:
        """The folder with the files of commands that survive; a `Queue` on the same journal uses it too."""
        return self.folder / f"{self.prefix[:-1] or JOURNAL}.commands"

    def worker_lock(self, worker: str) -> Path:
        """The liveness lock of a worker: held by it and by everything that it started."""
        return self.folder / f"{self.prefix}worker-{worker}.lock"

    def worker_locks(self) -> list[Path]:
        """Returns the liveness locks that there are, those of an older version (`.leash`) included."""
        return sorted(path for end in ("lock", "leash") for path in self.folder.glob(f"{self.prefix}worker-*.{end}"))


def daemon_paths(config: Config, make: bool = True) -> DaemonPaths:
    """Returns where a project's daemon keeps its files.

    Parameters:
        make: whether to create the folder, for this user alone.

    Raises:
        DaemonError: it cannot be created.
    """
    name, prefix = state_folder(str(config.root), config.journal)
    folder = Path(name)
    try:
        if make:
            folder.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DaemonError(f"cannot create the folder {folder}: {error.strerror}") from error
    return DaemonPaths(folder, prefix)
