"""Files as triggers: each version of a file that matches a pattern starts one run, however many engines look and crash.

What has been started is a fact for each file of a job, written in the transaction of the trigger: whoever comes second, or again
after a crash, finds it. The kernel only says *that* something happened; what has changed is found by comparing the folders with
the facts, so that nothing is missed that came while nobody looked. Part of the core, a source of triggers like `schedules`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from taskrun.engine import messages as m
from taskrun.engine.core.executors import Executors
from taskrun.engine.core.facts import KnownFile
from taskrun.engine.core.folders import Folder, FolderWatch, folder_mark, scan, versions
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.known_files import (
    FilesEntry,
    drop_triggers,
    forget_files,
    mark_gone,
    recognize,
    start_files,
)
from taskrun.engine.core.queries.views import rfc3339
from taskrun.model.clock import Clock
from taskrun.model.codec import encode, message_of
from taskrun.model.errors import DaemonError, JobNotFound, TaskrunError
from taskrun.processes.threads import in_thread
from taskrun.rules.file_patterns import FilePattern
from taskrun.rules.policies import Routed
from taskrun.rules.settling import Settling, Version

logger = logging.getLogger(__name__)
CODE, FILE = "code", "file"  # origins: `@job(trigger=[files(…)])`, `[[files]]`
BEGUN_WITHIN = 5.0  # seconds that an executor waits until the files of its jobs are watched
AGAIN = 1.0  # seconds until files are tried again that could not be used
CHECKED = 1.0  # seconds between two looks at whether folders have changed of which the kernel has said nothing
QUICK = 2_000  # folders that are looked at so often; of more, less often
WHOLE = 60.0  # seconds between two scans without a reason
BLIND = 5.0  # seconds between two scans where the kernel cannot watch
LAZY = 4.0  # a scan is followed by a pause so many times as long
BURST = 100  # files that one transaction starts
SLICE = 500  # files that are looked at without letting the event loop go on
FORGOTTEN = 7 * 86_400.0  # seconds after which a file that is gone is forgotten


@dataclass(slots=True)
class Watched:
    """A trigger that this engine looks after."""

    entry: FilesEntry
    patterns: list[FilePattern]
    settling: Settling
    known: dict[str, KnownFile]  # of all triggers of its job, by path
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    looking: bool = False
    changed: bool = False  # something has, so that it is to be scanned
    scanned: float = -math.inf
    rested: float = -math.inf  # not to be scanned again before this moment
    checked: float = -math.inf
    folders: dict[str, object] = field(default_factory=dict)  # that were scanned, with their marks

    def is_new(self, path: str, version: Version) -> bool:
        """Whether a version of a file has not started a run."""
        known = self.known.get(path)
        return known is None or version not in known.versions


class Changes(NamedTuple):
    """What a scan has found: versions that have started no run, and known files that are gone, gone for long, or back."""

    new: dict[str, Version]
    gone: list[str]
    old: list[str]
    back: list[str]


class FileTriggers:
    """The files that one engine watches.

    Parameters:
        journal_file: where the journal is, whose files start nothing.
        periodic: False with virtual time: what only looks now and then does not run by itself.
    """

    def __init__(
        self,
        journal: Journal,
        executors: Executors,
        clock: Clock,
        journal_file: str | None,
        periodic: bool,
    ) -> None:
        self._journal = journal
        self._executors = executors
        self._clock = clock
        self.open = False  # whether files start runs
        self.root = Path.cwd()  # from which relative patterns go
        # Beginnings of paths that start nothing, since they are taskrun's own.
        self.own: tuple[str, ...] = () if journal_file is None else (journal_file,)
        self._periodic = periodic
        self._watched: dict[tuple[str, FilesEntry], Watched] = {}
        self._known: dict[str, dict[str, KnownFile]] = {}  # by job
        self._watch = FolderWatch(self._heard)
        self._marks: dict[str, object] = {}  # of the folders that the kernel watches
        self._blind = False  # the kernel cannot watch them
        self._taking = asyncio.Lock()
        self._minding: asyncio.Task[None] | None = None

    async def join(self, description: m.Description) -> None:
        """Watches for the jobs of an executor; patterns that they had before and have no longer are dropped."""
        entries = [msgspec.convert(one, FilesEntry) for one in description.watched]
        await self._take(CODE, entries, jobs=description.names)

    async def set(self, entries: Iterable[FilesEntry], owner: str = "") -> None:
        """Watches for the configuration, in place of what it had before.

        Parameters:
            owner: which configuration it is, of those that use the journal.
        """
        await self._take(FILE, list(entries), owner=owner)

    @property
    def busy(self) -> bool:
        """Whether something is looked at right now, or is about to be."""
        return any(one.looking or one.wake.is_set() for one in self._watched.values())

    def look(self) -> None:
        """Looks at all folders, whatever the kernel says: with virtual time nothing else does so now and then."""
        for one in self._watched.values():
            one.changed = True
            one.wake.set()

    def topics(self) -> dict[str, list[str]]:
        """Returns the names of the triggers that the configuration has given, by job."""
        found: dict[str, list[str]] = {}
        for origin, entry in self._watched:
            if origin == FILE:
                found.setdefault(entry.job, []).append(entry.topic)
        return found

    async def close(self) -> None:
        """Starts nothing any more."""
        self._watch.close()
        tasks = [task for task in (self._minding, *(one.task for one in self._watched.values())) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watched.clear()
        self._minding = None

    # ---- which files

    async def _take(
        self,
        origin: str,
        entries: Sequence[FilesEntry],
        jobs: frozenset[str] | None = None,
        owner: str | None = None,
    ) -> None:
        async with self._taking:
            wanted = {(origin, entry) for entry in entries}
            mine = [key for key in self._watched if key[0] == origin and (jobs is None or key[1].job in jobs)]
            for key in mine:
                if key not in wanted:
                    await _ended(self._watched.pop(key))
            act = partial(drop_triggers, origin=origin, entries=entries, jobs=jobs, owner=owner)
            await self._journal.do(act, self._forget)
            if not self._watched and not wanted and not mine:  # as in most projects
                return
            self._watched |= {key: self._made(key[1]) for key in wanted if key not in self._watched}
            await self._rewatch()
            # Also those that were taken on before by who was cancelled then.
            new = [one for key in wanted if (one := self._watched[key]).task is None]
            for one in new:
                one.task = asyncio.get_running_loop().create_task(self._follow(origin, one))
            with suppress(TimeoutError):  # a folder that does not answer holds nobody up for long
                async with asyncio.timeout(BEGUN_WITHIN):
                    await asyncio.gather(*(one.begun.wait() for one in new))
            if self._minding is None and self._periodic:
                self._minding = asyncio.get_running_loop().create_task(self._mind())

    def _forget(self, jobs: Iterable[str]) -> None:
        for job in jobs:
            self._known.pop(job, None)

    def _made(self, entry: FilesEntry) -> Watched:
        patterns = [FilePattern(pattern, str(self.root)) for pattern in entry.patterns]
        return Watched(entry, patterns, Settling(entry.settle), self._known.setdefault(entry.job, {}))

    async def _begin(self, origin: str, one: Watched) -> None:
        """Finds what came while nobody looked; files that are there at the first look count as known."""
        found = await in_thread(scan, one.patterns, self.own)
        one.known |= await self._journal.do(
            partial(recognize, origin=origin, entry=one.entry, patterns=one.patterns, files=found.files)
        )
        one.changed = True
        one.begun.set()

    # ---- that something has changed

    def _heard(self, paths: list[str]) -> None:
        for one in self._watched.values():
            if not one.changed and any(_concerns(pattern, path) for path in paths for pattern in one.patterns):
                one.changed = True
                one.wake.set()

    async def _rewatch(self) -> None:
        """Has the kernel watch all folders that are there."""
        patterns = [pattern for one in self._watched.values() if one.entry.poll is None for pattern in one.patterns]
        marks = await in_thread(_identities, {pattern.folder for pattern in patterns})
        folders: set[Folder] = {(pattern.folder, pattern.deep) for pattern in patterns if marks[pattern.folder]}
        self._blind = not await self._watch.watch(frozenset(folders))
        self._marks = marks

    async def _mind(self) -> None:
        """Watches folders anew that were made or replaced: what the kernel watches is a folder, not a name."""
        while True:
            await self._clock.sleep(CHECKED)
            try:
                if await in_thread(_identities, set(self._marks)) != self._marks:
                    async with self._taking:
                        self._watch.close()
                        await self._rewatch()
                        self._heard([pattern.folder for one in self._watched.values() for pattern in one.patterns])
            except Exception:  # such as no thread to be had: it looks again
                logger.exception("folders could not be watched anew yet")

    # ---- one trigger

    async def _follow(self, origin: str, one: Watched) -> None:
        while True:
            one.looking = True
            one.wake.clear()
            try:
                if not one.begun.is_set():
                    await self._begin(origin, one)
                moment = await self._look(one)
            except TaskrunError as error:  # such as the death of a worker, or a lost lease
                logger.warning("%s cannot be started by files yet: %s", one.entry.job, error)
                moment = self._clock.now() + AGAIN
            except Exception:
                logger.exception("%s cannot be started by files yet", one.entry.job)
                moment = self._clock.now() + AGAIN
            one.looking = False
            alarm = None if moment == math.inf else self._clock.alarm(moment - self._clock.now(), one.wake.set)
            await one.wake.wait()
            if alarm is not None:
                alarm.cancel()

    async def _look(self, one: Watched) -> float:
        """Does what is to be done now; returns when to look again."""
        now = self._clock.now()
        await self._check(one, now)
        if one.changed and (one.rested <= now or one.rested > now + WHOLE):  # the latter: the clock was set back
            await self._scan(one)
        if due := one.settling.due(self._clock.now(), SLICE):
            await self._start_settled(one, due)
        now = self._clock.now()
        moments = [one.settling.next(now), one.rested if one.changed else None, self._next_check(one)]
        return min((moment for moment in moments if moment is not None), default=math.inf)

    def _every(self, one: Watched) -> float | None:
        """Returns how often to look without being told to; None: never."""
        if one.entry.poll is not None or self._blind:
            return one.entry.poll or BLIND
        return max(CHECKED, len(one.folders) / QUICK) if self._periodic else None

    def _next_check(self, one: Watched) -> float | None:
        every = self._every(one)
        return None if every is None else one.checked + every

    async def _check(self, one: Watched, now: float) -> None:
        """Looks now and then whether something has changed of which the kernel has not told."""
        every = self._every(one)
        if every is None or one.checked <= now < one.checked + every:
            return
        one.checked = now
        if one.entry.poll is not None or self._blind or not one.scanned <= now < one.scanned + WHOLE:
            one.changed = True
        elif not one.changed and await in_thread(_marks, one.folders) != one.folders:
            one.changed = True  # never False: the kernel may have told of a change meanwhile

    async def _scan(self, one: Watched) -> None:
        """Compares the folders with what is known."""
        one.changed = False
        begun = time.monotonic()
        found = await in_thread(scan, one.patterns, self.own)
        one.scanned = self._clock.now()
        one.rested = one.scanned + LAZY * (time.monotonic() - begun)
        one.folders = found.folders
        changes = await in_thread(_changes, one, found.files, one.known.copy(), one.scanned)
        one.settling.keep(changes.new)
        for part in _parts([*changes.new]):
            one.settling.see({path: changes.new[path] for path in part}, one.scanned)
            await asyncio.sleep(0)
        if all(pattern.folder in found.folders for pattern in one.patterns):  # else they may only be out of reach
            await self._mark(one, changes)

    async def _mark(self, one: Watched, changes: Changes) -> None:
        """Notes which known files are gone or are back, and forgets those that are gone for long."""
        for moment, paths in ((one.scanned, changes.gone), (None, changes.back)):
            for part in _parts(paths):
                one.known |= await self._journal.do(partial(mark_gone, job=one.entry.job, paths=part, moment=moment))
        for part in _parts(changes.old):
            await self._journal.do(partial(forget_files, job=one.entry.job, paths=part))
            for path in part:
                one.known.pop(path, None)

    async def _start_settled(self, one: Watched, due: Sequence[str]) -> None:
        """Starts runs for the files that have settled."""
        settled = one.settling.settled(due, await in_thread(versions, due), self._clock.now())
        left = [path for path, version in settled.items() if one.is_new(path, version)]
        for path in settled.keys() - set(left):
            one.settling.forget(path, settled[path])
        try:
            while left and self.open and (peer := self._executors.with_job(one.entry.job)) is not None:
                await self._start(one, peer, {path: settled[path] for path in left[:BURST]})
                del left[:BURST]
        finally:
            one.settling.again(left, self._clock.now() + AGAIN)

    async def _start(self, one: Watched, peer: m.Peer, files: Mapping[str, Version]) -> None:
        asked = (_prepared(peer, one.entry, _event(path, version, one.known)) for path, version in files.items())
        routed = dict(zip(files, await asyncio.gather(*asked), strict=True))
        act = partial(start_files, entry=one.entry, files=files, routed=routed)
        one.known |= await self._journal.do(act)
        for path, version in files.items():
            one.settling.forget(path, version)


async def _prepared(peer: m.Peer, entry: FilesEntry, event: dict[str, Any]) -> Routed:
    """Asks the job's executor what a file starts; what is wrong with that refuses the file, which is used up.

    Raises:
        DaemonError, JobNotFound: the executor is gone, or has the job no longer.
    """
    try:
        if entry.input is None:
            routed: Routed = await peer.ask(m.Route(topic=entry.topic, data=encode(event, "event"), job=entry.job))
            return routed
        given = {**msgspec.json.decode(entry.input, type=dict[str, msgspec.Raw]), entry.field: event["path"]}
        return Routed([await peer.ask(m.Prepare(job=entry.job, input=encode(given, "input")))])
    except (DaemonError, JobNotFound):
        raise
    except Exception as error:
        logger.exception("%s does not start %s", ascii(event["path"]), entry.job)
        return Routed([], message_of(error))


def _changes(one: Watched, files: Mapping[str, Version], known: Mapping[str, KnownFile], now: float) -> Changes:
    """Compares files as they are with what is known; on a thread, since there may be a great many."""
    new = {path: version for path, version in files.items() if path not in known or version not in known[path].versions}
    missing = [path for path in known.keys() - files.keys() if any(pattern.matches(path) for pattern in one.patterns)]
    since = {path: known[path].gone for path in missing}
    return Changes(
        new=new,
        gone=[path for path, gone in since.items() if gone is None],
        old=[path for path, gone in since.items() if gone is not None and gone < now - FORGOTTEN],
        back=[path for path in files if path not in new and known[path].gone is not None],
    )


def _event(path: str, version: Version, known: Mapping[str, KnownFile]) -> dict[str, Any]:
    before = known.get(path)
    return {
        "path": path,
        "name": os.path.basename(path),  # noqa: PTH119
        "size": version.size,
        "modified": rfc3339(version.modified / 1e9),
        "change": "added" if before is None or before.gone is not None else "modified",
    }


def _concerns(pattern: FilePattern, path: str) -> bool:
    return pattern.matches(path) or (pattern.may_have(path) and os.path.isdir(path))  # noqa: PTH112


def _identities(folders: Iterable[str]) -> dict[str, object]:
    """Returns for each folder which one it is, None where there is none."""
    marks = {folder: folder_mark(folder) for folder in folders}
    return {folder: mark[:2] if isinstance(mark, tuple) else None for folder, mark in marks.items()}


def _marks(folders: Iterable[str]) -> dict[str, object]:
    return {folder: folder_mark(folder) for folder in folders}


def _parts(paths: Sequence[str]) -> list[Sequence[str]]:
    return [paths[at : at + SLICE] for at in range(0, len(paths), SLICE)]


async def _ended(one: Watched) -> None:
    if one.task is not None:
        one.task.cancel()
        await asyncio.gather(one.task, return_exceptions=True)
