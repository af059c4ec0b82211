"""Folders as they are: which files in them match, and when the kernel says that something has changed there.

All of it happens on threads: neither a large folder nor a slow disk holds the event loop up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple

from taskrun.rules.file_patterns import FilePattern
from taskrun.rules.settling import Version

logger = logging.getLogger(__name__)
STEP = 50  # milliseconds of quiet after which changes are passed on
DEBOUNCE = 200  # milliseconds after which they are passed on in any case
BREATH = 200  # files after which a scan lets other threads go on
PAUSE = 0.0005  # seconds for which it does

Folder = tuple[str, bool]  # an absolute path, and whether its folders are watched as well


class Scan(NamedTuple):
    """What was found: the files that match, and the folders that were read, each with what changes when its entries do."""

    files: dict[str, Version]
    folders: dict[str, object]


def scan(patterns: Collection[FilePattern], own: Collection[str]) -> Scan:
    """Looks for the files that match, in all folders where they may be.

    Parameters:
        own: beginnings of paths that are left out.
    """
    found = Scan({}, {})
    left = [pattern.folder for pattern in patterns]
    count = 0
    while left:
        folder = left.pop()
        mark = folder_mark(folder)
        if folder in found.folders or mark is None:
            continue
        found.folders[folder] = mark
        with suppress(OSError):  # it is gone meanwhile, or nobody may look into it
            for entry in os.scandir(folder):
                count += 1
                if count % BREATH == 0:
                    time.sleep(PAUSE)
                if entry.path.startswith(tuple(own)):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    left += [entry.path for pattern in patterns if pattern.may_have(entry.path)][:1]
                elif any(pattern.matches(entry.path) for pattern in patterns) and (version := version_of(entry.path)):
                    found.files[entry.path] = version
    return found


def versions(paths: Iterable[str]) -> dict[str, Version]:
    """Returns the files of these paths as they are; without those that are gone."""
    return {path: version for path in paths if (version := version_of(path)) is not None}


def version_of(path: str) -> Version | None:
    """Returns the version of a file, None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - half as fast by `Path`
    except OSError:
        return None
    return Version(found.st_ino, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def folder_mark(folder: str) -> object:
    """Returns what changes whenever a name comes to a folder or leaves it, None where there is no such folder."""
    try:
        found = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns) if stat.S_ISDIR(found.st_mode) else None


class FolderWatch:
    """Hears from the kernel what changes in folders.

    Parameters:
        changed: called on the event loop with paths. There may be more than were changed, and under load fewer.
    """

    def __init__(self, changed: Callable[[list[str]], None]) -> None:
        self.folders: frozenset[Folder] = frozenset()
        self._changed = changed
        self._stops: list[threading.Event] = []

    async def watch(self, folders: frozenset[Folder]) -> bool:
        """Watches these folders, all of which are there, instead of those before; returns whether that works."""
        if folders == self.folders:
            return True
        self.close()
        kinds = [(sorted(path for path, deep in folders if deep is kind), kind) for kind in (True, False)]
        if not all([await self._begin(paths, deep) for paths, deep in kinds if paths]):
            return False
        self.folders = folders
        return True

    def close(self) -> None:
        """Watches nothing any more."""
        for stop in self._stops:
            stop.set()
        self._stops, self.folders = [], frozenset()

    async def _begin(self, paths: list[str], deep: bool) -> bool:
        loop, stop = asyncio.get_running_loop(), threading.Event()
        begun: asyncio.Future[bool] = loop.create_future()
        self._stops.append(stop)

        def tell(call: Callable[..., None], *args: Any) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(call, *args)

        def answer(works: bool) -> None:
            if not begun.done():
                begun.set_result(works)

        def work() -> None:
            try:
                for changes in _changes(paths, deep, stop, lambda: tell(answer, True)):
                    tell(self._changed, changes)
            except Exception as error:  # one of them is gone, or the kernel watches no more
                logger.warning("%s cannot be watched: %s", ", ".join(paths), error)
                tell(answer, False)

        threading.Thread(target=work, name="taskrun-folders", daemon=True).start()
        return await begun


def _changes(paths: list[str], deep: bool, stop: threading.Event, ready: Callable[[], None]) -> Iterator[list[str]]:
    """Iterates over paths that have changed, until it is told to stop."""
    # Imported here, in a thread of its own: it takes as long as the rest of a daemon, and most projects watch nothing.
    rust = import_module("watchfiles._rust_notify")
    missed = False
    while not stop.is_set():
        with rust.RustNotify(paths, False, False, 0, deep, True) as notify:
            ready()
            if missed:
                yield paths
            try:
                while not stop.is_set():
                    found = notify.watch(DEBOUNCE, STEP, 0, stop)
                    if not isinstance(found, str):
                        yield [path for _, path in found]
            except rust.WatchfilesRustInternalError:  # such as a name that is no UTF-8: it has to begin anew
                missed = True
