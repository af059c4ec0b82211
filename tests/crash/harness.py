"""Kills a process at every commit of one handler, restarts it, and reports what came of it as JSON.

    python -m tests.crash.harness HANDLER FOLDER sqlite|postgres

A fresh interpreter without threads, so that it may fork: each fork runs a real queue on a real journal and is killed
with SIGKILL before or after its k-th commit. The report names, for each point, the end of the run and every step that was
finished in the journal at the kill and was executed again all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from taskrun.engine.executor.replay import Replay
from tests.crash.corpus import CORPUS, TRACE, queue
from tests.crash.journals import KINDS, Journal, Storage

LIMIT = 120  # more commits than any handler of the corpus makes
AT_ONCE = 4  # commits whose points are played at the same time: mostly they wait for a lease
FINISHED = "SELECT key FROM steps WHERE status = 'succeeded' AND kind = 'run'"


class Point(NamedTuple):
    """Where a process is killed: at its `at`-th commit, before it, or after it and before anybody learns of it."""

    at: int
    after: bool


def killed(storage: Storage, point: Point) -> Storage:
    """Has a storage kill its process at a point: before means within the transaction, with all its locks held."""
    commit, left = storage._commit, point.at

    def counted(*args: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0 and not point.after:
            os.kill(os.getpid(), signal.SIGKILL)
        commit(*args)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    storage._commit = counted  # type: ignore[method-assign, assignment]
    return storage


def forget_the_journal() -> None:
    """Seeds the bug that the test must catch: a replay that does not look at what is recorded."""
    Replay.find = lambda self, key, kind, call: (None, False)  # type: ignore[method-assign]


def fork(work: Callable[[], None]) -> int:
    """Runs `work` in a fork; returns its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(3)
    return pid


def in_fork(work: Callable[[], None]) -> int:
    """Runs `work` in a fork; returns its exit status."""
    return os.waitpid(fork(work), 0)[1]


def at_every_commit(
    folder: Path,
    play: Callable[[Point, Path], dict[str, Any] | None],
    enough: Callable[[dict[str, Any]], bool] = lambda report: False,
) -> list[dict[str, Any]]:
    """Plays each point in a fork and a folder of its own, until nobody is killed any more or one is enough.

    Returns what `play` did.
    """
    found: list[dict[str, Any]] = []
    for first in range(1, LIMIT, AT_ONCE):
        forks: list[tuple[int, Path]] = []
        for point in [Point(first + number // 2, number % 2 == 1) for number in range(2 * AT_ONCE)]:
            place = folder / f"{point.at}-{point.after}"
            place.mkdir()

            def report(point: Point = point, place: Path = place) -> None:
                (place / "report.json").write_text(json.dumps(play(point, place)))

            forks.append((fork(report), place))
        for pid, place in forks:
            assert os.waitpid(pid, 0)[1] == 0, place
        reports = [json.loads((place / "report.json").read_text()) for _, place in forks]
        found += filter(None, reports)
        if reports[-2:] == [None, None] or any(map(enough, filter(None, reports))):
            break
    return found


def execute(name: str, storage: Storage, output: Path) -> None:
    """Triggers the handler, unless an earlier process has, and writes its end to `output`."""

    async def main() -> None:
        async with queue(storage, lease=1.0) as jobs:
            known = [entry async for entry in jobs.runs(job=name)]
            entry = known[0] if known else await jobs.jobs[name].start()
            output.write_text(json.dumps({"result": await entry.result(timeout=20)}))

    asyncio.run(main())


def traces(trace: Path) -> list[str]:
    return trace.read_text().splitlines() if trace.exists() else []


def killed_and_restarted(name: str, point: Point, journal: Journal, folder: Path) -> dict[str, Any] | None:
    """Kills at one point and restarts; None when the handler ended before it."""
    output, trace = folder / "output.json", folder / "trace"
    os.environ[TRACE] = str(trace)
    status = in_fork(lambda: execute(name, killed(journal.storage(), point), output))
    if not os.WIFSIGNALED(status):
        return None
    done = {key for (key,) in journal.ask(FINISHED)}
    before = len(traces(trace))
    again = in_fork(lambda: execute(name, journal.storage(), output))
    repeated = sorted({line.split(" ", 1)[1] for line in traces(trace)[before:]} & done)
    ended = json.loads(output.read_text()) if again == 0 and output.exists() else {"status": again}
    return {**point._asdict(), "repeated": repeated, **ended}


def main(name: str, folder: Path, kind: str, forgets: bool) -> None:
    def play(point: Point, place: Path) -> dict[str, Any] | None:
        with KINDS[kind](place) as journal:
            return killed_and_restarted(name, point, journal, place)

    os.environ[TRACE] = str(folder / "golden.trace")
    golden = folder / "golden.json"
    with KINDS[kind](folder) as journal:
        in_fork(lambda: execute(name, journal.storage(), golden))
    points = at_every_commit(folder, play, lambda report: forgets and bool(report["repeated"]))
    print(json.dumps({"golden": json.loads(golden.read_text()), "points": points}))


if __name__ == "__main__":
    assert sys.argv[1] in CORPUS
    forgets = os.environ.get("TASKRUN_TEST_BUG") == "forget"
    if forgets:
        forget_the_journal()
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], forgets)
