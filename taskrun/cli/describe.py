"""`python -m taskrun.cli.describe ROOT JOBS…`: imports the job files, prints what is in them as JSON, and ends.

Run by `offline` as a process of its own, so that user code never runs inside a command that only looks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from taskrun.declarations.registry import discover


def main() -> None:
    """Answers on what is standard output now; what the job files print goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    root, *places = sys.argv[1:]
    found = discover(places, Path(root))
    described = {
        "jobs": [job.describe() for job in found.registry.jobs.values()],
        "pipes": [pipe.describe() for pipe in found.registry.pipes.values()],
        "problems": found.problems,
    }
    with os.fdopen(answer, "wb") as out:
        out.write(msgspec.json.encode(described))
    os._exit(0)  # threads of user code do not hold up the answer


if __name__ == "__main__":
    main()
