"""What a command costs next to `python -c pass`: `python tests/benchmarks/bench_cli.py [ROUNDS]`.

Measured in turn, so that a noisy machine is noisy to all; medians, and their ratio to the bare interpreter. The promise: at
most 2.5 with a warm daemon, at most 10 without one. Exits with 1 when it is broken. Bytecode is written, as it is in any
installation, whatever this shell's environment says.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = shutil.which("taskrun", path=str(Path(sys.executable).parent))
TASKRUN = [SCRIPT] if SCRIPT else [sys.executable, "-m", "taskrun"]
WARM = ("start hello", "list", "list --json", "show @last", "show @last --json", "wait @last", "_complete -- start h")
COLD = ("list", "list --json", "show @last", "show @last --json", "schedule", "jobs", "jobs --json")
WARM_LIMIT, COLD_LIMIT = 2.5, 10.0
JOB = "from taskrun import job\n\n@job\nasync def hello(name: str = 'you') -> str:\n    return name\n"


def measured(lines: dict[str, list[str]], rounds: int, folder: Path, env: dict[str, str]) -> dict[str, float]:
    """Returns the median of each command in milliseconds."""
    taken: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(rounds):
        for name, line in lines.items():
            begun = time.perf_counter()
            subprocess.run(line, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True)
            taken[name].append((time.perf_counter() - begun) * 1000)
    return {name: statistics.median(times) for name, times in taken.items()}


def compare(kind: str, commands: tuple[str, ...], limit: float, rounds: int, folder: Path, env: dict[str, str]) -> bool:
    """Prints a table; returns whether the promise is kept."""
    lines = {command: [*TASKRUN, *command.split()] for command in commands}
    found = measured({"python -c pass": [sys.executable, "-c", "pass"], **lines}, rounds, folder, env)
    bare = found.pop("python -c pass")
    print(f"{kind}: python -c pass {bare:.1f} ms, limit {limit} ×")
    for command, took in found.items():
        print(f"  taskrun {command:24s} {took:7.1f} ms {took / bare:6.2f} ×{'' if took <= limit * bare else '  OVER'}")
    return all(took <= limit * bare for took in found.values())


def main() -> None:
    """Measures in a project of its own."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    with tempfile.TemporaryDirectory(prefix="taskrun-bench-") as name:
        folder = Path(name)
        env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = str(folder / ".pycache")
        (folder / "jobs").mkdir()
        (folder / "taskrun.toml").write_text("")
        (folder / "jobs" / "hello.py").write_text(JOB)

        def run(line: str) -> None:
            subprocess.run([*TASKRUN, *line.split()], cwd=folder, env=env, capture_output=True, check=True)

        for _ in range(20):
            run("run hello")
        time.sleep(2)  # for the daemon to be warm
        kept = compare("with a warm daemon", WARM, WARM_LIMIT, rounds, folder, env)
        run("daemon stop")
        for line in COLD:
            run(line)
        kept = compare("without a daemon", COLD, COLD_LIMIT, rounds, folder, env) and kept
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
