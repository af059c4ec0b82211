"""Which files have stopped changing: what was seen of each, and since when it is as it is. Pure; time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import NamedTuple


class Version(NamedTuple):
    """A version of a file."""

    inode: int
    size: int
    modified: int  # nanoseconds


class Settling:
    """Files that have changed, until they are as they are for long enough.

    Parameters:
        settle: seconds for which a file is unchanged when it has settled.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._seen: dict[str, tuple[Version, float]] = {}  # by path: as it was seen last, and since when it is so
        self._due: list[tuple[float, str]] = []  # a heap; what is no longer so is passed over

    def __len__(self) -> int:
        return len(self._seen)

    def see(self, files: Mapping[str, Version], now: float) -> None:
        """Takes in how files are now."""
        for path, version in files.items():
            known = self._seen.get(path)
            if known is None or known[0] != version or known[1] > now:  # else the clock was set back
                self._seen[path] = version, now
                heappush(self._due, (now + self._settle, path))

    def keep(self, paths: Iterable[str]) -> None:
        """Forgets all files but these."""
        left = self._seen.keys() - set(paths)
        for path in left:
            del self._seen[path]

    def forget(self, path: str, version: Version) -> None:
        """Forgets a file, unless it has changed since."""
        known = self._seen.get(path)
        if known is not None and known[0] == version:
            del self._seen[path]

    def due(self, now: float, most: int) -> list[str]:
        """Returns the files to look at again, at most so many: if they are still as they were seen, they have settled."""
        found: dict[str, None] = {}
        while len(found) < most and (moment := self.next(now)) is not None and moment <= now:
            found[heappop(self._due)[1]] = None
        return list(found)

    def again(self, paths: Iterable[str], moment: float) -> None:
        """Has files that were due be due once more: they could not be used yet."""
        for path in paths:
            if path in self._seen:
                heappush(self._due, (moment, path))

    def settled(self, due: Iterable[str], files: Mapping[str, Version], now: float) -> dict[str, Version]:
        """Returns which of those that were due have settled, given how they are now; the others begin anew, or are gone."""
        for path in due:
            if path not in files:
                self._seen.pop(path, None)
        self.see(files, now)
        return {path: version for path, version in files.items() if self._seen[path][1] <= now - self._settle}

    def next(self, now: float) -> float | None:
        """Returns when the next file is due."""
        if self._due and self._due[0][0] > now + self._settle:  # the clock was set back
            self._due = [(min(moment, now + self._settle), path) for moment, path in self._due]
            heapify(self._due)
        while self._due and self._due[0][1] not in self._seen:
            heappop(self._due)
        return self._due[0][0] if self._due else None
