"""Every error taskrun raises, and the one private signal that unwinds a handler.

All public errors derive from `TaskrunError`. They keep their constructor arguments in `args`, so that each survives the
journal and a process boundary and is rebuilt as itself.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any


class TaskrunError(Exception):
    """Base of every error that taskrun raises."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__.startswith("taskrun."):  # not for a user's subclass, which keeps its own module
            cls.__module__ = "taskrun"  # the name users import it by, and the one `error_type` shows


# ---- declaring and configuring


class DefinitionError(TaskrunError):
    """A job, pipe or step was declared in a way that cannot work."""


class DurationInvalid(TaskrunError, ValueError):
    """A duration or frequency could not be understood; the message names the units."""


class ConfigError(TaskrunError):
    """`taskrun.toml` or a `TASKRUN_…` variable is wrong."""


class NoProject(ConfigError):
    """There is no `taskrun.toml` where one is looked for."""


class NotBound(TaskrunError):
    """A job or pipe was used outside a handler without a queue."""


# ---- finding


class NotFound(TaskrunError):
    """There is nothing of this name or id."""


class NameNotFound(NotFound, AttributeError, KeyError):
    """There is nothing of this name, looked up as an attribute or as an item: `queue.jobs.NAME`, `queue.jobs["NAME"]`."""

    __str__ = Exception.__str__  # that of `KeyError` adds quotes


class JobNotFound(NameNotFound):
    """No job of this name."""


class PipeNotFound(NameNotFound):
    """No pipe of this name."""


class RunNotFound(NotFound):
    """No run of this id."""


class AmbiguousRun(NotFound):
    """A short run id fits several runs.

    Parameters:
        ref: what was given.
        candidates: triples of run id, job and time of the trigger (Unix seconds), newest first.
    """

    def __init__(self, ref: str, candidates: list[tuple[str, str, float]]) -> None:
        super().__init__(ref, candidates)
        self.ref = ref
        self.candidates = [(str(run), str(job), float(at)) for run, job, at in candidates]

    def __str__(self) -> str:
        return f'"{self.ref}" matches {len(self.candidates)} runs: ' + ", ".join(
            f"{run} {job}" for run, job, _ in self.candidates
        )


# ---- values


class InputInvalid(TaskrunError):
    """The input of a trigger or an event does not fit; `problems` names every bad field.

    Parameters:
        job: name of the job or pipe.
        problems: pairs of field path (`"a.b"`, `""` for the whole) and what is wrong with it.
    """

    def __init__(self, job: str, problems: list[tuple[str, str]]) -> None:
        super().__init__(job, problems)
        self.job = job
        self.problems = [(str(path), str(text)) for path, text in problems]

    def __str__(self) -> str:
        lines = [f"{path}: {text}" if path else text for path, text in self.problems]
        return f"invalid input for {self.job}: " + "; ".join(lines)


class OutputInvalid(TaskrunError):
    """A handler returned something that its declared output does not allow."""


class NotEncodable(TaskrunError):
    """A value cannot be written to the journal; names what it is and its type."""


class PayloadTooLarge(TaskrunError):
    """A value is larger than `max_payload`."""


# ---- raised by handlers and steps to steer retries


class Fatal(TaskrunError):
    """Stops retrying, of the step and of the run.

    Parameters:
        output: what the run that fails with it leaves as its output all the same.
    """

    def __init__(self, *args: Any, output: Any = None) -> None:
        super().__init__(*args)
        self.output = output


class RetryAfter(TaskrunError):
    """Fails this attempt and sets the wait before the next.

    Parameters:
        delay: seconds, a `timedelta`, or a string with a unit.
    """

    def __init__(self, delay: Any, message: str = "") -> None:
        super().__init__(delay, message)
        self.delay = delay
        self.message = message

    def __str__(self) -> str:
        return self.message or f"retry after {self.delay}"


# ---- what a step can end with


class StepFailed(TaskrunError):
    """A step used up its retries with an error whose own type cannot be rebuilt.

    Parameters:
        step: key of the step.
        error_type: qualified name of the original error.
        message: its text.
        traceback: its traceback as text, may be empty.
    """

    def __init__(self, step: str, error_type: str = "", message: str = "", traceback: str = "") -> None:
        super().__init__(step, error_type, message, traceback)
        self.step = step
        self.error_type = error_type
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"step {self.step} failed: {self.error_type}: {self.message}"


class StepTimeout(TaskrunError, TimeoutError):
    """One attempt of a step took longer than its timeout."""


class WorkerCrashed(TaskrunError):
    """The process of a `thread` step died, or went over its memory or CPU limit; a command that survives was cut off.

    Parameters:
        final: no retry repeats it.
    """

    def __init__(self, message: str = "", final: bool = False) -> None:
        super().__init__(*((message, True) if final else (message,)))
        self.message = message
        self.final = final

    def __str__(self) -> str:
        return self.message


class CommandFailed(TaskrunError):
    """A `shell` command ended with a code other than 0.

    Parameters:
        command: the command as typed.
        code: exit code, negative for a signal.
        stdout: what it printed, at most 1 MB.
        stderr: what it printed as errors, at most 1 MB.
    """

    def __init__(self, command: str, code: int, stdout: str = "", stderr: str = "") -> None:
        super().__init__(command, code, stdout, stderr)
        self.command = command
        self.code = code
        self.stdout = stdout
        self.stderr = stderr

    def __str__(self) -> str:
        first, *more = self.command.strip().splitlines() or [""]
        tail = self.stderr.strip().splitlines()[-8:]
        ended_with = f"code {self.code}" if self.code >= 0 else signal_name(-self.code)
        return "\n  ".join([f"`{first}{' …' if more else ''}` ended with {ended_with}", *tail])


def signal_name(number: int) -> str:
    """Returns the name of a signal; those for real-time use have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class WaitTimeout(TaskrunError, TimeoutError):
    """A `wait_for` saw no matching event in time."""


class NonDeterminismError(TaskrunError):
    """A replay asked for another step than the journal holds under that identity."""


# ---- how a run can end, seen by whoever waits for it


class RunError(TaskrunError):
    """A run did not succeed. Base of the ends below."""

    run_id: str


class RunFailed(RunError):
    """A run failed for good.

    Parameters:
        run_id: its id.
        error_type: qualified name of the error, such as `"ValueError"`.
        message: its text.
        traceback: its traceback as text.
        reason: the run's reason: `crash loop`, `timeout`, None for an error of its handler.
    """

    def __init__(
        self, run_id: str, error_type: str = "", message: str = "", traceback: str = "", reason: str | None = None
    ) -> None:
        super().__init__(run_id, error_type, message, traceback, reason)
        self.run_id = run_id
        self.error_type = error_type
        self.message = message
        self.traceback = traceback
        self.reason = reason

    def __str__(self) -> str:
        return f"run {self.run_id} failed: {self.error_type}: {self.message}"


class RunTimeout(RunFailed):
    """A run overran its own timeout."""


class RunCancelled(RunError):
    """A run was cancelled; `reason` says why (`explicit`, `debounce`, `parent` …)."""

    def __init__(self, run_id: str, reason: str = "explicit") -> None:
        super().__init__(run_id, reason)
        self.run_id = run_id
        self.reason = reason

    def __str__(self) -> str:
        return f"run {self.run_id} was cancelled ({self.reason})"


class RunDiscarded(RunError):
    """A trigger was discarded by a throttle."""

    def __init__(self, run_id: str, reason: str = "throttle") -> None:
        super().__init__(run_id, reason)
        self.run_id = run_id
        self.reason = reason

    def __str__(self) -> str:
        return f"run {self.run_id} was discarded ({self.reason})"


class RunEnded(TaskrunError):
    """The run has already ended, so this operation is not possible."""


class RunNotEnded(TaskrunError):
    """The run has not ended yet, so it cannot be retried."""


# ---- the journal and the daemon


class JournalError(TaskrunError):
    """The journal cannot be used; the message says why and what helps."""


class JournalNewer(JournalError):
    """The journal was written by a newer taskrun."""


class JournalDamaged(JournalError):
    """The journal is damaged or came back shorter than it was. It is kept as it is."""


class JournalLocked(JournalError):
    """Another process holds the journal."""


class JournalUnavailable(JournalError):
    """The journal cannot be written (disk full, read-only, I/O error); nothing acknowledged is lost."""


class EngineLost(JournalError):
    """This engine's lease was taken over by another one; it may write nothing more."""


class DaemonError(TaskrunError):
    """The daemon cannot be started or reached."""


class FolderReadOnly(DaemonError):
    """No daemon can run where nothing can be written."""


class DaemonStopped(DaemonError):
    """The daemon was told to stop, so its clients must not start another one."""


class Unwind(BaseException):
    """Private: takes a handler's coroutine down on eviction, close and reload.

    A `BaseException`, so that `except Exception` in a handler cannot swallow it.
    """


def single_errors(error: BaseException) -> Iterator[BaseException]:
    """Yields an error, or of a group the errors in it."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from single_errors(inner)
    else:
        yield error
