"""How fast queued commands are executed: `python tests/benchmarks/bench_exec.py [COMMANDS] [ROUNDS]`.

Each round has the daemon execute so many runs of `exec`, all of one group with four slots, and then executes as many commands
by bare `posix_spawn` and `wait`, four at a time; printed is the median ratio of the rates. The promise: at least half of it. It
is broken when even the best round is below it; then this exits with 1. With each rate stands the processor time of a run in ms:
all of it, which a busy machine changes less than the rate, and by process, where the commands count with their supervisors.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from taskrun.daemon.client import Client
from taskrun.model.config import load

TRUE = "/bin/true"
SLOTS = 4
PROMISE = 0.5


class Taken(NamedTuple):
    """What so many commands took."""

    seconds: float
    cpu: list[float]  # by process


def bare(count: int) -> Taken:
    """Executes bare processes, `SLOTS` at a time."""
    begun, running, before = time.perf_counter(), 0, os.times()
    for _ in range(count):
        if running == SLOTS:
            os.wait()
            running -= 1
        os.posix_spawn(TRUE, [TRUE], os.environ)
        running += 1
    for _ in range(running):
        os.wait()
    return Taken(time.perf_counter() - begun, [sum(os.times()[:4]) - sum(before[:4])])


def queued(client: Client, count: int) -> Taken:
    """Executes queued runs; the time is that from their release to the last end."""
    client.call("pause", job="exec")
    line = f'{{"command":["{TRUE}"],"cwd":"/","group":"bench","slots":{SLOTS}}}'
    ids = [client.call("start", job="exec", input=line)["run"]["id"] for _ in range(count)]
    daemon = client.call("status")["pid"]
    begun, before = time.perf_counter(), by_process(daemon)
    client.call("resume", job="exec")
    for ended in client.stream("wait", runs=ids):
        assert ended["status"] == "succeeded", ended
    seconds = time.perf_counter() - begun
    return Taken(seconds, [after - then for after, then in zip(by_process(daemon), before, strict=True)])


def by_process(daemon: int) -> list[float]:
    """Returns the seconds of processor that were used by this client, the daemon, its workers, and all below them."""
    workers = children(daemon)
    below = sum(used(pid, 4) for worker in workers for pid in family(worker)[1:])
    return [sum(os.times()[:2]), used(daemon, 2), sum(used(worker, 2) for worker in workers), below]


def used(pid: int, fields: int) -> float:
    """Returns the processor time of a process: in user mode, in the kernel, and both of the children that it has awaited."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, stat[11 : 11 + fields])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def family(pid: int) -> list[int]:
    return [pid, *(one for child in children(pid) for one in family(child))]


def main() -> None:
    """Measures in a project of its own."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    ratios = []
    print("processor time of exec: client + daemon + worker + supervisors and commands")
    with tempfile.TemporaryDirectory(prefix="taskrun-bench-") as name:
        path = Path(name, "taskrun.toml")
        path.write_text("")
        client = Client.connect(load(path, os.environ), autostart=True)
        try:
            for _ in range(rounds):
                ours, theirs = queued(client, count), bare(count)
                ratios.append(theirs.seconds / ours.seconds)
                told = [
                    f"{count / taken.seconds:6.0f}/s {sum(taken.cpu) / count * 1e3:5.2f} ms" for taken in (ours, theirs)
                ]
                parts = " + ".join(f"{cpu / count * 1e3:.2f}" for cpu in ours.cpu)
                print(f"exec {told[0]} ({parts})   posix_spawn {told[1]}   {ratios[-1]:5.2f} ×")
        finally:
            client.call("stop")
            client.close()
    print(f"{statistics.median(ratios):.2f} × the rate of bare processes; promised: {PROMISE} ×")
    sys.exit(0 if max(ratios) >= PROMISE else 1)


if __name__ == "__main__":
    main()
