"""Several processes on one SQLite journal, and processes that are killed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from taskrun.model.records import RunFilter
from taskrun.stores.sqlite import SqliteStorage

from . import children
from .files import write

ADDER = """
    highwater.EVERY = 0.0
    store = SqliteStorage(path)
    store.open()
    for batch in range(40):
        names = [f"{sys.argv[2]}-{batch}-{n}" for n in range(5)]
        fns = [lambda tx, name=name: tx.add_run(Run(id=name, job="job", created_at=1.0)) for name in names]
        assert all(error is None for _, error in store.apply(fns))
        if batch % 10 == 0:
            store.close()
            store.open()
    store.close()
    """


def test_processes_that_share_a_journal_lose_nothing_and_never_meet_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    adders = [children.start(ADDER, path, n) for n in range(3)]
    for adder in adders:
        children.finish(adder)
    store = SqliteStorage(path)
    store.open()
    [(runs, _)] = store.apply([lambda tx: tx.runs(RunFilter())])
    store.close()
    assert {run.id for run in runs} == {f"{p}-{b}-{n}" for p in range(3) for b in range(40) for n in range(5)}
    assert sorted(run.seq for run in runs) == list(range(1, 601))


def test_a_write_from_outside_is_noticed_and_one_of_its_own_is_not(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "journal.db")
    store.open()
    write(store, lambda tx: tx.put("a", "1"))
    before = store.outside()
    write(store, lambda tx: tx.put("a", "2"))
    assert store.outside() == before
    other = SqliteStorage(tmp_path / "journal.db")
    other.open()
    other.apply([lambda tx: tx.get("a")])
    assert store.outside() == before
    write(other, lambda tx: tx.put("a", "3"))
    assert store.outside() != before
    other.close()
    store.close()


def test_a_look_outside_does_not_wait_for_a_batch(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "journal.db")
    store.open()
    before = store.outside()
    [(during, error)] = store.apply([lambda tx: store.outside()])
    assert (during, error) == (before, None)
    store.close()


ACKNOWLEDGER = """
    store = SqliteStorage(path, exclusive=sys.argv[3] == "True")
    store.open()
    acks = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    while True:
        names = [f"{os.getpid()}-{time.monotonic_ns()}-{n}" for n in range(7)]
        store.apply([lambda tx, name=name: tx.add_run(Run(id=name, job="job", created_at=1.0)) for name in names])
        os.write(acks, "".join(name + "\\n" for name in names).encode())
    """


@pytest.mark.parametrize("exclusive", [True, False])
def test_what_was_acknowledged_survives_kills(tmp_path: Path, exclusive: bool) -> None:
    path, acks = tmp_path / "journal.db", tmp_path / "acks"
    acks.touch()
    dice = random.Random(7)
    for _ in range(5):
        size = acks.stat().st_size
        child = children.start(ACKNOWLEDGER, path, acks, exclusive)
        while acks.stat().st_size == size and child.poll() is None:
            time.sleep(0.01)
        time.sleep(dice.uniform(0.0, 0.1))
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        store = SqliteStorage(path, exclusive=exclusive)
        store.open()
        acknowledged = acks.read_text().split()
        [(runs, _)] = store.apply([lambda tx: tx.runs(RunFilter())])
        store.close()
        assert set(acknowledged) <= {run.id for run in runs}
        assert len(runs) % 7 == 0
