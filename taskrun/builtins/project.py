"""All jobs that a project has: those of its files, and those that come with taskrun.

Called by the workers, and by commands that load the jobs themselves (`run --local`, schemas without a daemon).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taskrun.builtins import JOBS
from taskrun.declarations.registry import Discovery, discover


def load_project(entries: Sequence[str], root: Path) -> Discovery:
    """Loads the jobs and pipes of a project.

    Parameters:
        entries: the setting `jobs`.
        root: the project's folder.
    """
    return discover(entries, root, JOBS)
