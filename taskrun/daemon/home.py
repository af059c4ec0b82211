"""The files of a project's daemon: lock, log and leashes, in one folder beside the journal. Import-light, as the client is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from taskrun.daemon.handover import LOCK, home
from taskrun.model.config import Config
from taskrun.model.errors import DaemonError


class Home(NamedTuple):
    """Where the files are. Two journals in one folder have a home each."""

    folder: Path
    prefix: str = ""

    @property
    def lock(self) -> Path:
        """Held by the daemon for life."""
        return self.folder / f"{self.prefix}{LOCK}"

    @property
    def launch(self) -> Path:
        """Held by whoever starts a daemon, meanwhile."""
        return self.folder / f"{self.prefix}launch.lock"

    @property
    def log(self) -> Path:
        """What the daemon says."""
        return self.folder / f"{self.prefix}daemon.log"

    def leash(self, worker: str) -> Path:
        """Held by a worker and everything it started."""
        return self.folder / f"{self.prefix}worker-{worker}.leash"

    def leashes(self) -> list[Path]:
        """Returns the leashes that there are."""
        return sorted(self.folder.glob(f"{self.prefix}worker-*.leash"))


def home_of(config: Config, make: bool = True) -> Home:
    """Returns where a project's daemon keeps its files.

    Parameters:
        make: whether to make the folder, for this user alone; who only looks needs none.

    Raises:
        DaemonError: it cannot be made.
    """
    place, prefix = home(str(config.root), config.journal)
    folder = Path(place)
    try:
        if make:
            folder.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DaemonError(f"cannot make the folder {folder}: {error.strerror}") from error
    return Home(folder, prefix)
