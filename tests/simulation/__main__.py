"""Plays seeds from the command line: `python -m tests.simulation --seeds 100000 --jobs 2`."""

from __future__ import annotations

import argparse
import os
import sys

from tests.postgres_server import shared_dsn
from tests.simulation.runner import play, story
from tests.simulation.world import Outcome

EVERY = 1_000  # seeds between two lines that say how far it is


def main() -> int:
    """Plays the seeds that the options name; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seed", type=int, help="just this one, with its story")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--hole", help="a known fault that is put back in")
    parser.add_argument("--enough", type=int, help="end after so many failures")
    parser.add_argument("--stories", type=int, default=0, help="how many stories to print as failures are found")
    parser.add_argument("--store", choices=["memory", "postgres"], default="memory", help="memory: a tenth on SQLite")
    options = parser.parse_args()
    first = options.first_seed
    seeds = [options.seed] if options.seed is not None else list(range(first, first + options.seeds))
    stories = 1 if options.seed is not None else options.stories
    done = wrong = 0

    def told(outcome: Outcome) -> None:
        nonlocal done, wrong
        done += 1
        if outcome.wrong is not None:
            wrong += 1
            print(f"seed {outcome.seed}: {outcome.wrong}"[:200] if wrong > stories else story(outcome), flush=True)
        if done % EVERY == 0:
            print(f"{done} of {len(seeds)} seeds are done, {wrong} wrong", flush=True)

    postgres = options.store == "postgres"
    if postgres:
        os.environ["TASKRUN_TEST_POSTGRES"] = shared_dsn()
    report = play(seeds, options.jobs, options.hole, told, options.enough, postgres)
    print("\n".join(report.lines()))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
