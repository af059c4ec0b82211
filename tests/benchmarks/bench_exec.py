"""How fast queued commands are executed: `python tests/benchmarks/bench_exec.py [COMMANDS] [ROUNDS]`.

Each round has the daemon execute so many runs of `exec`, all of one group with four slots, and then executes as many commands
by bare `posix_spawn` and `wait`, four at a time; printed is the median ratio of the rates. The promise: at least half of it. It
is broken when even the best round is below it; then this exits with 1.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from taskrun.daemon.client import Client
from taskrun.model.config import load

TRUE = "/bin/true"
SLOTS = 4
PROMISE = 0.5


def bare(count: int) -> float:
    """Returns the seconds that bare processes take, `SLOTS` at a time."""
    begun, running = time.perf_counter(), 0
    for _ in range(count):
        if running == SLOTS:
            os.wait()
            running -= 1
        os.posix_spawn(TRUE, [TRUE], os.environ)
        running += 1
    for _ in range(running):
        os.wait()
    return time.perf_counter() - begun


def queued(client: Client, count: int) -> float:
    """Returns the seconds from the release of queued runs to the last end."""
    client.call("pause", job="exec")
    line = f'{{"command":["{TRUE}"],"cwd":"/","group":"bench","slots":{SLOTS}}}'
    ids = [client.call("start", job="exec", input=line)["run"]["id"] for _ in range(count)]
    begun = time.perf_counter()
    client.call("resume", job="exec")
    for ended in client.stream("wait", runs=ids):
        assert ended["status"] == "succeeded", ended
    return time.perf_counter() - begun


def main() -> None:
    """Measures in a project of its own."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    ratios = []
    with tempfile.TemporaryDirectory(prefix="taskrun-bench-") as name:
        path = Path(name, "taskrun.toml")
        path.write_text("")
        client = Client.connect(load(path, os.environ), autostart=True)
        try:
            for _ in range(rounds):
                ours, theirs = queued(client, count), bare(count)
                ratios.append(theirs / ours)
                print(f"exec {count / ours:7.0f}/s   posix_spawn {count / theirs:7.0f}/s   {theirs / ours:5.2f} ×")
        finally:
            client.call("stop")
            client.close()
    print(f"{statistics.median(ratios):.2f} × the rate of bare processes; promised: {PROMISE} ×")
    sys.exit(0 if max(ratios) >= PROMISE else 1)


if __name__ == "__main__":
    main()
