"""All jobs that a project has: those of its files, and those that come with taskrun.

Called by the workers, and by commands that load the jobs themselves (`run --local`, schemas without a daemon).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from taskrun.builtins import JOBS
from taskrun.declarations.registry import Discovery, discover


def load_project(entries: Sequence[str], root: Path, last_good: Mapping[str, str] = MappingProxyType({})) -> Discovery:
    """Loads the jobs and pipes of a project.

    Parameters:
        entries: the setting `jobs`.
        root: the project's folder.
        last_good: sources that are used for files that cannot be loaded any more, by path.
    """
    return discover(entries, root, JOBS, last_good)
