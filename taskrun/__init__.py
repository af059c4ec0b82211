"""taskrun: ordinary async functions as durable jobs, from the terminal or in your own process.

The public names, each loaded from its module when it is first asked for: a command that needs none of them, such as
`taskrun list` with a warm daemon, must not pay for all of them.
"""

TYPE_CHECKING = False  # for a checker it is true; `typing` itself takes as long to import as a daemon to answer

if TYPE_CHECKING:
    from taskrun.declarations.calls import Current
    from taskrun.declarations.files import files
    from taskrun.declarations.job import Event, Job, job
    from taskrun.declarations.job_ref import JobRef, job_ref
    from taskrun.declarations.pipe import Pipe, pipe
    from taskrun.declarations.steps import (
        Completed,
        current,
        log,
        now,
        progress,
        random,
        run,
        shell,
        sleep,
        sleep_until,
        step,
        thread,
        uuid,
    )
    from taskrun.engine.api.queue import Queue
    from taskrun.engine.api.run import Run
    from taskrun.model.errors import (
        AmbiguousRun,
        CommandFailed,
        ConfigError,
        DaemonError,
        DefinitionError,
        DurationInvalid,
        EngineLost,
        Fatal,
        InputInvalid,
        JobNotFound,
        JournalDamaged,
        JournalError,
        JournalLocked,
        JournalNewer,
        JournalUnavailable,
        NonDeterminismError,
        NotBound,
        NotEncodable,
        NotFound,
        OutputInvalid,
        PayloadTooLarge,
        PipeNotFound,
        RetryAfter,
        RunCancelled,
        RunDiscarded,
        RunEnded,
        RunError,
        RunFailed,
        RunNotEnded,
        RunNotFound,
        RunTimeout,
        StepFailed,
        StepTimeout,
        TaskrunError,
        WaitTimeout,
        WorkerCrashed,
    )
    from taskrun.rules.policies import Backoff, Concurrency, Cron, Debounce, Throttle
    from taskrun.stores.memory import MemoryStorage
    from taskrun.stores.postgres import PostgresStorage
    from taskrun.stores.sqlite import SqliteStorage

__version__ = "0.1.0"

__all__ = [
    "AmbiguousRun",
    "Backoff",
    "CommandFailed",
    "Completed",
    "Concurrency",
    "ConfigError",
    "Cron",
    "Current",
    "DaemonError",
    "Debounce",
    "DefinitionError",
    "DurationInvalid",
    "EngineLost",
    "Event",
    "Fatal",
    "InputInvalid",
    "Job",
    "JobNotFound",
    "JobRef",
    "JournalDamaged",
    "JournalError",
    "JournalLocked",
    "JournalNewer",
    "JournalUnavailable",
    "MemoryStorage",
    "NonDeterminismError",
    "NotBound",
    "NotEncodable",
    "NotFound",
    "OutputInvalid",
    "PayloadTooLarge",
    "Pipe",
    "PipeNotFound",
    "PostgresStorage",
    "Queue",
    "RetryAfter",
    "Run",
    "RunCancelled",
    "RunDiscarded",
    "RunEnded",
    "RunError",
    "RunFailed",
    "RunNotEnded",
    "RunNotFound",
    "RunTimeout",
    "SqliteStorage",
    "StepFailed",
    "StepTimeout",
    "TaskrunError",
    "Throttle",
    "WaitTimeout",
    "WorkerCrashed",
    "__version__",
    "current",
    "files",
    "job",
    "job_ref",
    "log",
    "now",
    "pipe",
    "progress",
    "random",
    "run",
    "shell",
    "sleep",
    "sleep_until",
    "step",
    "thread",
    "uuid",
]

_HOMES = {
    "taskrun.declarations.calls": "Current",
    "taskrun.declarations.files": "files",
    "taskrun.declarations.job": "Event Job job",
    "taskrun.declarations.job_ref": "JobRef job_ref",
    "taskrun.declarations.pipe": "Pipe pipe",
    "taskrun.declarations.steps": "Completed current log now progress random run shell sleep sleep_until step thread uuid",
    "taskrun.engine.api.run": "Run",
    "taskrun.engine.api.queue": "Queue",
    "taskrun.rules.policies": "Backoff Concurrency Cron Debounce Throttle",
    "taskrun.stores.memory": "MemoryStorage",
    "taskrun.stores.postgres": "PostgresStorage",
    "taskrun.stores.sqlite": "SqliteStorage",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Loads a public name (PEP 562)."""
    home = _HOME_OF.get(name, "taskrun.model.errors")
    if name not in __all__:
        raise AttributeError(f"module 'taskrun' has no attribute {name!r}")
    value = globals()[name] = getattr(__import__(home, fromlist=[name]), name)
    return value


def __dir__() -> list[str]:
    """Lists the public names."""
    return sorted(__all__)
