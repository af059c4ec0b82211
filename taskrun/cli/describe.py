"""What is in the job files, for a command while no daemon runs: they are imported into its process, which ends right after.

What they print, also by processes of their own, goes to standard error: standard output belongs to the command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from typing import Any

import msgspec

from taskrun.declarations.registry import discover
from taskrun.model.config import Config


def describe(config: Config) -> dict[str, Any]:
    """Returns what the `jobs` request returns, save what is paused; the environment and the folder are a worker's."""
    os.environ.update(config.env)
    with chdir(config.root), _output_aside():
        found = discover(config.jobs, config.root)
    described = {
        "jobs": [job.describe() for job in found.registry.jobs.values()],
        "pipes": [pipe.describe() for pipe in found.registry.pipes.values()],
        "problems": found.problems,
    }
    plain: dict[str, Any] = msgspec.to_builtins(described)
    return plain


@contextmanager
def _output_aside() -> Iterator[None]:
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
