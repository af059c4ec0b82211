"""What `taskrun.toml` says of jobs that are not there: it does nothing, so whoever looks at the jobs is told of it."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from fnmatch import fnmatchcase

from taskrun.model.config import Config
from taskrun.model.names import RESERVED

OWN_NAME = "; it is told of runs of that --name alone"


def unknown_jobs(config: Config, names: Collection[str], *tables: str) -> list[str]:
    """Returns the names that no job has, of those in `[[schedule]]`, `[[files]]` and `[[notify]]`, each as a sentence.

    Parameters:
        names: of the jobs that there are.
        tables: those to look at; all three unless said.
    """
    written = {
        "schedule": [(entry.job, "") for entry in config.schedules],
        "files": [(table.job, "") for table in config.files],
        "notify": [(wanted, OWN_NAME) for table in config.notify for wanted in table.jobs],
    }
    told = [(table, job, more) for table in tables or written for job, more in written[table]]
    return [
        f'[[{table}]] names "{job}", but there is no such job{_meant(job, names)}{more}'
        for table, job, more in dict.fromkeys(told)
        if not any(fnmatchcase(name, job) if table == "notify" else name == job for name in {*names, *RESERVED})
    ]


def _meant(job: str, names: Collection[str]) -> str:
    close = get_close_matches(job, list(names), 1, 0.6)
    return f" (did you mean {close[0]}?)" if close else ""
