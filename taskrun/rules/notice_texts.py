"""What a notification says: its title and its text, by what happened to a run. Pure functions."""

from __future__ import annotations

import shlex
from datetime import datetime

import msgspec

from taskrun.model.byte_escapes import readable
from taskrun.model.durations import human
from taskrun.model.names import EACH, EXEC
from taskrun.model.records import Cause, ErrorRecord, Run

LONGEST = 2_000  # characters of a text
LONGEST_NAME = 60  # characters of a command in a title
Said = tuple[str, str]  # title and text


def name_of(run: Run) -> str:
    """Returns what a run is called: one of many inputs by the job that has them, a command without a name by itself."""
    given = msgspec.json.decode(run.input) if run.job in (EACH, EXEC) and run.name is None else {}
    if job := given.get("job"):
        return f"{EACH} of {job}"
    command = given.get("command") or ""
    # a message is UTF-8, which cannot hold other bytes of the command
    line = readable(" ".join((command if isinstance(command, str) else shlex.join(command)).split()))
    return run.name or (line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…") or run.job


def error_of(run: Run) -> ErrorRecord | None:
    """Returns the error that a run has ended or was paused with."""
    return None if run.error is None else msgspec.json.decode(run.error, type=ErrorRecord)


def failed(run: Run) -> Said:
    """It failed for good."""
    attempts = f", after {run.attempt} attempts" if run.attempt > 1 else ""
    return f"{name_of(run)} failed{attempts}", _cut(_problem(run))


def recovered(run: Run, since: float, now: float) -> Said:
    """The first success after a failure."""
    return f"{name_of(run)} works again", f"It had failed for {human(now - since)}."


def succeeded(run: Run, now: float) -> Said:
    """It succeeded."""
    return f"{name_of(run)} succeeded", f"It took {human(now - (run.started_at or now))}."


def cancelled(run: Run) -> Said:
    """It was cancelled."""
    return f"{name_of(run)} was cancelled", _cut(_by_whom("Cancelled", run))


def paused(run: Run, option: str = "") -> Said:
    """It is paused, by somebody or since its retries are used up.

    Parameters:
        option: what the command that goes on needs to mean the project.
    """
    said = _problem(run) if run.cause is Cause.EXHAUSTED else _by_whom("Paused", run)
    command = " ".join(filter(None, ("taskrun", option, "resume", run.id)))
    return f"{name_of(run)} is paused", _cut(f"{said}\nResume it: {command}")


def _by_whom(done: str, run: Run) -> str:
    if run.reason in (None, Cause.USER.value):
        return f"{done} by hand."
    return f"{done}: {run.reason}."


def missed(job: str, number: int, last: float, most: int, reason: str) -> Said:
    """Slots of its schedules were missed: so many, of which `last` was the last; more than `most` are not counted."""
    slots = "a slot" if number == 1 else f"{number} slots" if number < most else f"{most} slots or more"
    which = "It was at" if number == 1 else "The last was at"
    return f"{job} missed {slots}", f"{which} {_clock(last)}; {reason}."


def late(run: Run, now: float) -> Said:
    """It started late after its slot, or has not started yet."""
    slot = run.slot or now
    begun = "is not started yet" if run.started_at is None else "was started"
    after = human((now if run.started_at is None else run.started_at) - slot)
    return f"{name_of(run)} is late", f"Its slot was at {_clock(slot)}; it {begun}, {after} after that."


def slow(run: Run, limit: float) -> Said:
    """It takes longer than it should."""
    verb = "took" if run.ended else "has taken"
    return f"{name_of(run)} is slow", f"It {verb} longer than {human(limit)}."


def _problem(run: Run) -> str:
    error = error_of(run)
    if error is None:
        return run.reason or "no reason is known"
    kind = error.type.removeprefix("taskrun.")
    if kind == "CommandFailed":  # what it printed says more than what it was
        command, *printed = error.message.splitlines()
        return "\n".join([*(line.strip() for line in printed), command])
    if kind == "Fatal" and error.message:
        return error.message
    return f"{kind}: {error.message}" if error.message else kind


def _cut(text: str) -> str:
    text = readable(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M}"
