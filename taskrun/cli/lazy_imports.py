"""The one place where modules are imported late, so that a command pays only for what it needs itself."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

CLIENT = "taskrun.daemon.client"  # where a daemon runs
OFFLINE = "taskrun.cli.backend.offline"  # where none runs: the journal
STANDALONE = "taskrun.daemon.standalone_worker"  # for `worker` alone
ENGINE_REPORTS = "taskrun.engine.core.engine_reports"  # for `workers` alone
ADDRESSES = "taskrun.stores.addresses"  # where the journal is on a server
STORAGE = "taskrun.stores.sqlite"  # where the journal has to be written to before it can be read
JOB_FILES = "taskrun.cli.backend.job_files"  # where none runs: the code of the jobs
PROJECT = "taskrun.builtins.project"  # where `taskrun.toml` declares jobs or pipes
BUILTIN_JOBS = "taskrun.builtins.builtin_jobs"  # where one of them is named: a webhook needs OpenSSL
JOB_VIEWS = "taskrun.engine.core.queries.jobs"  # where none runs: what the journal knows of them
SCHEDULE_ADD = "taskrun.cli.commands.schedule_add"  # for `schedule add` alone: inputs
RUN_LOCAL = "taskrun.cli.commands.run_local"  # for `run --local` alone: the whole engine
DESCRIBED_JOBS = "taskrun.cli.backend.described_jobs"  # where a job was named that has had no slot
CRON = "taskrun.rules.cron"  # where there are schedules
SCHEDULE_TABLES = "taskrun.rules.schedule_tables"  # where `taskrun.toml` has schedules
SCHEDULE_SLOTS = "taskrun.engine.core.schedule_kept"  # for `schedule` alone
CODE_WATCHER = "taskrun.daemon.watch.code_watcher"  # for `watch` alone: watchfiles


def import_late(module: str) -> ModuleType:
    """Returns a module by its full name."""
    return import_module(module)


if TYPE_CHECKING:
    from rich.cells import cell_len as cell_len
    from rich.color import ColorSystem as ColorSystem
    from rich.style import Style as Style
    from rich.text import Text as Text
else:

    class _LateName:
        """Stands for a name of a module that is loaded when the name is first used: data for a pipe needs no rich."""

        def __init__(self, module: str, name: str) -> None:
            self._module, self._name = module, name

        @cached_property
        def _found(self) -> Any:
            return getattr(import_module(self._module), self._name)

        def __call__(self, *args: Any, **options: Any) -> Any:
            return self._found(*args, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._found, name)

    ColorSystem = _LateName("rich.color", "ColorSystem")
    Style = _LateName("rich.style", "Style")
    Text = _LateName("rich.text", "Text")
    cell_len = _LateName("rich.cells", "cell_len")
