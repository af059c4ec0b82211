"""The files that make up a project's code, and how they have changed. Compares files, never imports them.

These are all files that a worker has loaded, helpers included, `taskrun.toml`, and new Python files in the folders where jobs
are looked for; not what an editor or the project itself leaves beside them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

Stamp = tuple[int, int, int]  # modification time, size, inode: every way of saving changes one of them
CHANGED, ADDED, GONE = "~", "+", "−"
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})


class FileChange(NamedTuple):
    """A file, and how it has changed."""

    file: Path
    how: str


class SourceFiles:
    """The files of one project.

    Parameters:
        config: `taskrun.toml`.
        entries: its setting `jobs`.
    """

    def __init__(self, config: Path, root: Path, entries: Iterable[str]) -> None:
        self._config = config
        self._root = root
        self._tops = [top for top in (_top(root, entry) for entry in entries) if top is not None]
        self._loaded: set[Path] = set()
        self._broken = False
        self._took = (0.0, 0.0)  # seconds of the last two scans
        self._seen = self._scan()  # before the workers have loaded them: what changes meanwhile has changed

    @property
    def look_took(self) -> float:
        """How many seconds a look takes: the shorter of the last two, since one may have been held up."""
        return min(self._took)

    def know(self, loaded: Iterable[str], broken: Iterable[str]) -> None:
        """Takes the files that the workers have loaded. While one is broken, any file of the project may fix it.

        What has changed or come since the last look may not be what they have loaded, so it stays a change.
        """
        fixing = [Path(file) for file in broken]
        self._loaded = {path for path in (*map(Path, loaded), *fixing) if path.is_absolute()}
        self._broken = bool(fixing)
        known = self._loaded | set(_python(self._root) if self._broken else ())
        now = {path: stamp for path, stamp in self._scan().items() if path in self._seen or path in known}
        self._seen = now | {path: stamp for path, stamp in self._seen.items() if path in now or not path.exists()}

    def changes(self) -> list[FileChange]:
        """Returns what has changed since the last call."""
        before, now = self._seen, self._scan()
        self._seen = now
        changed = [FileChange(path, CHANGED) for path in now if path in before and before[path] != now[path]]
        added = [FileChange(path, ADDED) for path in now if path not in before]
        gone = [FileChange(path, GONE) for path in before if path not in now]
        return sorted([*changed, *added, *gone])

    def folders(self) -> set[Path]:
        """Returns the folders to watch, those that exist."""
        around = {path.parent for path in self._loaded} | {self._root, self._config.parent}
        tops = {folder for top in self._tops for folder in (*_folders(top), top.parent)}
        return {folder for folder in around | tops if folder.is_dir()}

    def __len__(self) -> int:
        return len(self._seen)

    def _scan(self) -> dict[Path, Stamp]:
        begun = time.monotonic()
        found = {path for top in self._tops for folder in _folders(top) for path in _python(folder)}
        if self._broken:
            found |= set(_python(self._root))
        stamps = ((path, _stamp(path)) for path in sorted(found | self._loaded | {self._config}))
        there = {path: stamp for path, stamp in stamps if stamp is not None}
        self._took = (self._took[1], time.monotonic() - begun)
        return there


def _top(root: Path, entry: str) -> Path | None:
    """Returns the folder in which an entry of `jobs` is looked for; None when it is a module or a single file."""
    path = root / entry
    while any(sign in str(path) for sign in "*?["):
        path = path.parent
    path = path.resolve()
    return None if path.suffix == ".py" or (not path.exists() and "." in entry) else path


def _folders(top: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(top):
        if "pyvenv.cfg" in files:
            inner.clear()
            continue
        inner[:] = [name for name in inner if name[0] not in "._" and name not in SKIPPED]
        yield Path(folder)


def _python(folder: Path) -> Iterator[Path]:
    for path in folder.glob("*.py"):
        if path.name[0] not in "._#" or path.name == "__init__.py":
            yield path


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
