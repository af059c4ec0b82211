"""What a command costs next to `python -c pass`: `python tests/benchmarks/bench_cli.py [ROUNDS]`.

Each round executes every command once and a bare interpreter before each, so that a noisy machine is noisy to both; printed are
medians of the rounds' ratios, of the time that passed and of the CPU that was used, by the command and by the daemon and its
workers together. The promise: with a warm daemon at most 2.5, 3 for commands that look further or follow a run; without one at
most 10. It is broken where CPU and time both are above it; then this exits with 1. Bytecode is written, as it is in any
installation, whatever this shell's environment says.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

SCRIPT = shutil.which("taskrun", path=str(Path(sys.executable).parent))
TASKRUN = [SCRIPT] if SCRIPT else [sys.executable, "-m", "taskrun"]
BARE = [sys.executable, "-c", "pass"]
HOT = ("start hello", "list", "list --json", "show @last", "show @last --json", "wait @last", "_complete -- start h")
WARM = (
    "--version",
    "exec -- true",
    "run hello",
    "start hello -f",
    "tail @last",
    "why @last",
    "cancel @last",
    "send news",
    "schedule",
)
COLD = ("list", "list --json", "show @last", "show @last --json", "schedule", "jobs", "jobs --json")
LIMITS = {"hot": 2.5, "warm": 3.0, "cold": 10.0}
JOB = (
    "from taskrun import job, pipe\n\nnews = pipe('news')\n\n"
    "@job\nasync def hello(name: str = 'you') -> str:\n    return name\n"
)


class Cost(NamedTuple):
    """Seconds that a command took: passed, of its own CPU, and of the daemon's and its workers'."""

    passed: float
    own: float
    daemon: float


class Project:
    """A project in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        self.env["PYTHONPYCACHEPREFIX"] = str(folder / ".pycache")
        self.daemon: list[int] = []  # its pid and those of its workers
        (folder / "jobs").mkdir()
        (folder / "taskrun.toml").write_text("")
        (folder / "jobs" / "hello.py").write_text(JOB)

    def run(self, line: str) -> str:
        """Executes a command line; returns what it printed."""
        line_ = [*TASKRUN, *line.split()]
        return subprocess.run(line_, cwd=self.folder, env=self.env, capture_output=True, text=True, check=True).stdout

    def find_daemon(self) -> None:
        """Finds the processes of the daemon."""
        pid = json.loads(self.run("daemon status --json"))["pid"]
        children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
        self.daemon = [pid, *map(int, children)]

    def cost(self, line: list[str]) -> Cost:
        """Executes a command line and measures it."""
        daemon, begun = sum(map(cpu, self.daemon)), time.perf_counter()
        process = subprocess.Popen(
            line,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        passed = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, line
        return Cost(passed, used.ru_utime + used.ru_stime, sum(map(cpu, self.daemon)) - daemon)


def cpu(pid: int) -> float:
    """Returns the seconds of CPU that a process has used; 0 where the system does not tell."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def compare(kind: str, commands: tuple[str, ...], rounds: int, project: Project) -> bool:
    """Prints a table; returns whether the promise is kept."""
    limit, kept = LIMITS[kind], True
    bare: list[Cost] = []
    costs: dict[str, list[tuple[float, float, Cost]]] = {command: [] for command in commands}
    for _ in range(rounds):
        for command in commands:
            base, cost = project.cost(BARE), project.cost([*TASKRUN, *command.split()])
            bare.append(base)
            costs[command].append((cost.passed / base.passed, (cost.own + cost.daemon) / base.own, cost))
    passed, own = (statistics.median(getattr(one, name) for one in bare) * 1000 for name in ("passed", "own"))
    print(f"{kind}: python -c pass {passed:.1f} ms, {own:.1f} ms of CPU; limit {limit} ×")
    print(f"  {'':32s} {'time':>7s} {'CPU':>7s}   own and daemon's CPU")
    for command, found in costs.items():
        time_ratio = statistics.median(one[0] for one in found)
        cpu_ratio = statistics.median(one[1] for one in found)
        own, daemon = (statistics.median(getattr(one[2], name) for one in found) * 1000 for name in ("own", "daemon"))
        over = min(time_ratio, cpu_ratio) > limit
        kept = kept and not over
        ratios = f"{time_ratio:5.2f} × {cpu_ratio:5.2f} ×"
        print(f"  taskrun {command:24s} {ratios}   {own:5.1f} + {daemon:4.1f} ms{'  OVER' if over else ''}")
    return kept


def main() -> None:
    """Measures in a project of its own."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    with tempfile.TemporaryDirectory(prefix="taskrun-bench-") as name:
        project = Project(Path(name))
        for _ in range(20):
            project.run("run hello")
        time.sleep(2)  # for the daemon to be warm
        project.find_daemon()
        kept = [compare("hot", HOT, rounds, project), compare("warm", WARM, rounds, project)]
        project.run("daemon stop")
        project.daemon.clear()
        for line in COLD:
            project.run(line)
        kept.append(compare("cold", COLD, rounds, project))
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
