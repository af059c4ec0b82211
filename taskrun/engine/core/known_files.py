"""What the journal keeps of files that start runs, and the transactions that read and write it. Asked by `file_triggers`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import msgspec
from msgspec.structs import replace

from taskrun.engine.core import refusals
from taskrun.engine.core.admit import Trigger, admit, new_id
from taskrun.engine.core.facts import FILE_TRIGGERS, FILES, FileTrigger, KnownFile
from taskrun.engine.core.tables import wanted_by_others
from taskrun.engine.core.transaction import Transaction
from taskrun.model.byte_escapes import escaped, restored
from taskrun.rules.file_patterns import FilePattern
from taskrun.rules.policies import Routed
from taskrun.rules.settling import Version

KEPT = 8  # versions of one file that are known


class FilesEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Files that start a job.

    Parameters:
        input: of a `[[files]]`: JSON text of the fields besides the path; None: user code makes the input.
        field: the one that gets the path.
    """

    job: str
    patterns: tuple[str, ...]
    settle: float = 1.0
    existing: bool = False
    poll: float | None = None
    input: str | None = None
    field: str = "path"

    @property
    def topic(self) -> str:
        """The name of the trigger."""
        return f"files:{' '.join(self.patterns)}"


def recognize(
    t: Transaction, origin: str, entry: FilesEntry, patterns: Sequence[FilePattern], files: Mapping[str, Version]
) -> dict[str, KnownFile]:
    """Returns what is known of the files of a job, by path. At a pattern's first sight the files that are there are known."""
    start = f"{entry.job}:"
    known = {restored(key.removeprefix(start)): one for key, one in FILES.all(t.tx, start).items()}
    names = [_name(origin, entry.job, pattern.text) for pattern in patterns]
    before = [one for one, name in zip(patterns, names, strict=True) if FILE_TRIGGERS.get(t.tx, name) is not None]
    for pattern, name in zip(patterns, names, strict=True):
        if pattern not in before:
            FILE_TRIGGERS.put(t.tx, name, FileTrigger(job=entry.job, pattern=escaped(pattern.text), since=t.now))
    if len(before) < len(patterns) and not entry.existing:
        for path, version in files.items():
            if path not in known and not any(pattern.matches(path) for pattern in before):
                known[path] = KnownFile(versions=[version])
                FILES.put(t.tx, _key(entry.job, path), known[path])
    return known


def start_files(
    t: Transaction, entry: FilesEntry, files: Mapping[str, Version], routed: Mapping[str, Routed]
) -> dict[str, KnownFile]:
    """Starts the runs of files, of each version once; returns what is known of these files then."""
    made: dict[str, KnownFile] = {}
    started, refused = False, None
    for path, version in files.items():
        key = _key(entry.job, path)
        known = FILES.get(t.tx, key) or KnownFile(versions=[])
        if version not in known.versions:  # else another engine was faster, or this is done a second time
            for prepared in routed[path].starts:
                admit(t, Trigger(prepared=prepared, id=new_id(), source=escaped(entry.topic.replace(":", " ", 1))))
                started = True
            refused = f"{Path(path).name}: {said}" if (said := routed[path].refused) else refused
            known = KnownFile(versions=[*known.versions[1 - KEPT :], version])
            FILES.put(t.tx, key, known)
        made[path] = known
    if started or refused:
        refusals.note(t, entry.job, entry.topic, refused)
    return made


def mark_gone(t: Transaction, job: str, paths: Iterable[str], moment: float | None) -> dict[str, KnownFile]:
    """Notes since when files are gone, None for those that are back; returns what is known of them."""
    made = {}
    for path in paths:
        known = FILES.get(t.tx, _key(job, path))
        if known is not None:
            made[path] = replace(known, gone=moment)
            FILES.put(t.tx, _key(job, path), made[path])
    return made


def forget_files(t: Transaction, job: str, paths: Iterable[str]) -> None:
    """Forgets files."""
    for path in paths:
        FILES.drop(t.tx, _key(job, path))


def drop_triggers(
    t: Transaction, origin: str, entries: Collection[FilesEntry], jobs: frozenset[str] | None, owner: str | None
) -> set[str]:
    """Forgets the triggers of an origin that are gone, and the files of jobs that are to have none; returns these jobs."""
    wanted = {_name(origin, entry.job, pattern) for entry in entries for pattern in entry.patterns}
    left = wanted | (frozenset() if owner is None else wanted_by_others(t, "files", owner, wanted))
    forgotten = set[str]()
    for name, trigger in FILE_TRIGGERS.all(t.tx, f"{origin}:").items():
        if name not in left and (jobs is None or trigger.job in jobs):
            FILE_TRIGGERS.drop(t.tx, name)
            forgotten.add(trigger.job)
    forgotten -= {trigger.job for trigger in FILE_TRIGGERS.all(t.tx).values()}
    forgotten -= {name.split(":")[1] for name in left}  # some may not have been recognized yet
    for job in forgotten:
        for key in FILES.all(t.tx, f"{job}:"):
            FILES.drop(t.tx, key)
    return forgotten


def _key(job: str, path: str) -> str:
    return f"{job}:{escaped(path)}"


def _name(origin: str, job: str, pattern: str) -> str:
    digest = blake2b(pattern.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return f"{origin}:{job}:{digest}"
