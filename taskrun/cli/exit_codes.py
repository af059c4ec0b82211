"""Exit codes, and what each error means to a person: a code, a message, and what to type next."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from taskrun.cli import times
from taskrun.cli.option_names import option_name
from taskrun.cli.project_option import for_project
from taskrun.cli.sanitize import lines
from taskrun.cli.screens.phrases import short
from taskrun.model import errors


class Code(IntEnum):
    """The exit codes of a command."""

    DONE = 0
    FAILED = 1  # the run
    USAGE = 2  # usage, bad input or bad configuration: nothing was recorded
    NOT_FOUND = 3  # or ambiguous
    UNREACHABLE = 4  # the daemon, or the journal
    REFUSED = 5  # discarded, or not possible in this state
    TIMED_OUT = 124
    FAULT = 125  # taskrun's own
    INTERRUPTED = 130  # or cancelled
    PIPE = 141  # nobody reads the output any more


CODES = {
    Code.DONE: "done",
    Code.FAILED: "the run failed; for `doctor`, something is wrong",
    Code.USAGE: "usage, bad input or bad configuration: nothing was recorded",
    Code.NOT_FOUND: "not found or ambiguous; for `daemon status`, it is stopped",
    Code.UNREACHABLE: "the daemon or the journal cannot be reached",
    Code.REFUSED: "refused: discarded, or not possible in this state",
    Code.TIMED_OUT: "timed out: the run's own timeout, or `--timeout`",
    Code.FAULT: "taskrun's own fault",
    Code.INTERRUPTED: "cancelled or interrupted",
    Code.PIPE: "nobody reads the output any more",
}


_RUN = r"\brun ([a-z0-9]{12})\b"
_KINDS = {
    Code.USAGE: "UsageError",
    Code.NOT_FOUND: "NotFound",
    Code.UNREACHABLE: "DaemonError",
    Code.REFUSED: "Refused",
    Code.TIMED_OUT: "TimeoutError",
}


class Stop(Exception):
    """Ends a command with a code and a message.

    Parameters:
        code: the exit code.
        problems: the messages, all of which are shown.
        hint: what to type next.
        kind: the name of the error for programs; derived from the code unless given.
    """

    def __init__(self, code: Code, *problems: str, hint: str = "", kind: str = "") -> None:
        super().__init__(code, *problems)
        self.code = code
        self.problems = problems
        self.hint = hint
        self.kind = kind or _KINDS.get(code, "TaskrunError")


class Explained(msgspec.Struct, frozen=True):
    """An error, explained."""

    code: Code
    problems: tuple[str, ...]
    hint: str = ""
    kind: str = ""

    def for_project(self, option: str) -> Explained:
        """Returns it with the commands that it names made to mean the project that an option chose."""
        problems = tuple(for_project(problem, option) for problem in self.problems)
        return replace(self, problems=problems, hint=for_project(self.hint, option))

    def view(self) -> dict[str, Any]:
        """Returns it as the JSON document of a command that failed."""
        return {"error": {"type": self.kind, "message": "\n".join(self.problems), "hint": self.hint}}

    def text(self) -> str:
        """Returns it as lines for standard error."""
        shown = [f"error: {lines(problem)}" for problem in self.problems]
        return "".join(f"{line}\n" for line in [*shown, *([f"  {lines(self.hint)}"] if self.hint else [])])


_ENDS = {
    "succeeded": Code.DONE,
    "failed": Code.FAILED,
    "cancelled": Code.INTERRUPTED,
    "discarded": Code.REFUSED,
}


def code_of(run: dict[str, Any]) -> Code:
    """Returns the exit code for the way in which a run has ended."""
    if run["status"] == "failed" and run["reason"] == "timeout":
        return Code.TIMED_OUT
    return _ENDS.get(run["status"], Code.DONE)


def explain(error: Exception) -> Explained:
    """Returns what an error means to a person."""
    if isinstance(error, Stop):
        return Explained(error.code, error.problems, error.hint, error.kind)
    meaning = next((meaning for kind, meaning in _MEANINGS if isinstance(error, kind)), _fault)
    return replace(meaning(error), kind=type(error).__name__)


def _plain(code: Code, hint: str = "") -> Callable[[Any], Explained]:
    """Returns how errors are explained whose message says all; `RUN` in the hint is the run that it names, if any."""

    def meaning(error: Exception) -> Explained:
        named = re.search(_RUN, str(error))
        return Explained(code, (str(error),), hint if named is None else hint.replace("RUN", short(named[1])))

    return meaning


def _input(error: errors.InputInvalid) -> Explained:
    named = [f"--{option_name(path.split('.'))}: {text}" if path else text for path, text in error.problems]
    return Explained(Code.USAGE, tuple(named), f"see what it takes: taskrun jobs {error.job}")


def _ambiguous(error: errors.AmbiguousRun) -> Explained:
    now = time.time()
    found = [f"{run} {job} {times.age(now - at)}" for run, job, at in error.candidates]
    return Explained(Code.NOT_FOUND, (f'"{error.ref}" matches {len(found)} runs: ' + " · ".join(found),))


def _fault(error: Exception) -> Explained:
    trace = "".join(traceback.format_exception(error)).rstrip()
    return Explained(Code.FAULT, (f"this is taskrun's own fault: {error!r}\n{trace}",), "check with: taskrun doctor")


NO_PROJECT = "make one: taskrun init   or use your own, which needs no folder: taskrun --user COMMAND"
_DAEMON = "see its log: taskrun daemon logs"
_MEANINGS: tuple[tuple[type[Exception], Callable[[Any], Explained]], ...] = (
    (errors.InputInvalid, _input),
    (errors.AmbiguousRun, _ambiguous),
    (errors.JobNotFound, _plain(Code.NOT_FOUND, "list them: taskrun jobs")),
    (errors.PipeNotFound, _plain(Code.NOT_FOUND, "list them: taskrun jobs")),
    (errors.RunNotFound, _plain(Code.NOT_FOUND, "list them: taskrun list --all")),
    (errors.NotFound, _plain(Code.NOT_FOUND, "see the run: taskrun show RUN")),
    (errors.RunEnded, _plain(Code.REFUSED, "run it again: taskrun retry RUN")),
    (errors.RunNotEnded, _plain(Code.REFUSED, "end it first: taskrun cancel RUN")),
    (errors.DurationInvalid, _plain(Code.USAGE)),
    (errors.NoProject, _plain(Code.USAGE, NO_PROJECT)),
    (errors.ConfigError, _plain(Code.USAGE)),
    (errors.DefinitionError, _plain(Code.USAGE)),
    (errors.PayloadTooLarge, _plain(Code.USAGE)),
    (errors.NotEncodable, _plain(Code.USAGE)),
    (errors.JournalError, _plain(Code.UNREACHABLE)),
    (
        errors.DaemonStopped,
        _plain(Code.UNREACHABLE, "unfinished runs wait in the journal; go on: taskrun daemon start"),
    ),
    (
        errors.FolderReadOnly,
        _plain(Code.UNREACHABLE, "without one work: taskrun list, show, jobs, schedule, tail --no-follow"),
    ),
    (errors.DaemonError, _plain(Code.UNREACHABLE, _DAEMON)),
)
