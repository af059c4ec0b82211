"""What tests of the SQLite store look at and do to its files."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from taskrun.model.records import Run
from taskrun.stores.base import Store, Tx
from taskrun.stores.sqlite import SqliteStorage

from .children import start
from .records import run


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder, but for what says nothing: SQLite's shared memory, an empty log."""
    files = {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}
    return {name: content for name, content in files.items() if content or not name.endswith("-wal")}


def write(store: Store, *fns: Callable[[Tx], Any]) -> None:
    for _, error in store.apply(fns):
        assert error is None


def add_runs(store: Store, count: int, first: int = 0) -> None:
    """Adds runs, each in a commit of its own."""
    for n in range(first, first + count):
        write(store, partial(_add, run(f"run-{n:06d}")))


def _add(added: Run, tx: Tx) -> None:
    tx.add_run(added)


def closed_journal(path: Path, runs: int = 3) -> Path:
    """Makes a journal with some commits and closes it."""
    store = SqliteStorage(path)
    store.open()
    add_runs(store, runs)
    store.close()
    return path


def killed_journal(path: Path, runs: int = 20, exclusive: bool = True) -> Path:
    """Makes a journal whose process was killed with everything in the write-ahead log, and the mark up to date."""
    child = start(
        """
        highwater.EVERY = 0.0
        store = SqliteStorage(path, exclusive=sys.argv[3] == "True")
        store.open()
        for n in range(int(sys.argv[2])):
            store.apply([lambda tx: tx.add_run(Run(id=f"run-{n:06d}", job="job", created_at=1.0))])
        os.kill(os.getpid(), 9)
        """,
        path,
        runs,
        exclusive,
    )
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    return path
