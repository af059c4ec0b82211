"""Kills a process at every journal write of one handler, restarts it, and reports what came of it as JSON.

    python -m tests.crash.harness HANDLER FOLDER

A fresh interpreter without threads, so that it may fork: each fork runs a real queue on a real SQLite journal and is killed
with SIGKILL before or after its k-th commit. The report names, for each point, the end of the run and every step that was
finished in the journal at the kill and was executed again all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from taskrun import SqliteStorage
from taskrun.engine.executor.replay import Replay
from tests.crash.corpus import CORPUS, TRACE, queue

LIMIT = 120  # more commits than any handler of the corpus makes


class KillingStorage(SqliteStorage):
    """Kills its process at its `at`-th commit: before it, or after it and before anybody learns of it."""

    def __init__(self, path: Path, at: int, after: bool) -> None:
        super().__init__(path)
        self._left = at
        self._after = after

    def apply(self, fns: Sequence[Callable[[Any], Any]], guard: Any = None) -> Any:
        self._left -= 1
        if self._left == 0 and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = super().apply(fns, guard)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def forget_the_journal() -> None:
    """Seeds the bug that the test must catch: a replay that does not look at what is recorded."""
    Replay.find = lambda self, key, kind, call: (None, False)  # type: ignore[method-assign]


def in_fork(work: Callable[[], None]) -> int:
    """Runs `work` in a fork; returns its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(3)
    return os.waitpid(pid, 0)[1]


def execute(name: str, storage: SqliteStorage, output: Path) -> None:
    """Triggers the handler, unless an earlier process has, and writes its end to `output`."""

    async def main() -> None:
        async with queue(storage, lease=1.0) as jobs:
            known = [entry async for entry in jobs.runs(job=name)]
            entry = known[0] if known else await jobs.jobs[name].start()
            output.write_text(json.dumps({"result": await entry.result(timeout=20)}))

    asyncio.run(main())


def finished_steps(journal: Path) -> dict[str, set[str]]:
    """Returns the keys of finished steps by run, read apart from taskrun."""
    if not journal.exists():
        return {}
    with sqlite3.connect(journal) as connection:
        try:
            rows = connection.execute(
                "select run, key from steps where status = 'succeeded' and kind = 'run'"
            ).fetchall()
        except sqlite3.OperationalError:
            return {}
    return {run: {key for other, key in rows if other == run} for run, _ in rows}


def traces(trace: Path) -> list[str]:
    return trace.read_text().splitlines() if trace.exists() else []


def point(name: str, folder: Path, at: int, after: bool) -> dict[str, Any] | None:
    """Kills at one point and restarts; None when the handler ended before it."""
    journal, output, trace = folder / "journal.db", folder / "output.json", folder / "trace"
    os.environ[TRACE] = str(trace)
    status = in_fork(lambda: execute(name, KillingStorage(journal, at, after), output))
    if not os.WIFSIGNALED(status):
        return None
    done = {key for keys in finished_steps(journal).values() for key in keys}
    before = len(traces(trace))
    again = in_fork(lambda: execute(name, SqliteStorage(journal), output))
    repeated = sorted({line.split(" ", 1)[1] for line in traces(trace)[before:]} & done)
    ended = json.loads(output.read_text()) if again == 0 and output.exists() else {"status": again}
    return {"at": at, "after": after, "repeated": repeated, **ended}


def main(name: str, folder: Path) -> None:
    os.environ[TRACE] = str(folder / "golden.trace")
    golden = folder / "golden.json"
    in_fork(lambda: execute(name, SqliteStorage(folder / "golden.db"), golden))
    points = []
    for at in range(1, LIMIT):
        found = []
        for after in (False, True):
            place = folder / f"{at}-{after}"
            place.mkdir()
            found.append(point(name, place, at, after))
        points += [entry for entry in found if entry is not None]
        if all(entry is None for entry in found):
            break
    print(json.dumps({"golden": json.loads(golden.read_text()), "points": points}))


if __name__ == "__main__":
    assert sys.argv[1] in CORPUS
    if os.environ.get("TASKRUN_TEST_BUG") == "forget":
        forget_the_journal()
    main(sys.argv[1], Path(sys.argv[2]))
