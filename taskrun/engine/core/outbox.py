"""What a transaction changed: one ordered list of typed events, handed to the followers of each type after the commit."""

from __future__ import annotations

import msgspec

from taskrun.model.records import ErrorRecord, PipeEvent, Run, Step


class RunAdded(msgspec.Struct, frozen=True, gc=False):
    """A run is new: triggered just now."""

    run: Run


class RunChanged(msgspec.Struct, frozen=True, gc=False):
    """A run, new or known, was written."""

    run: Run


class RunStarted(msgspec.Struct, frozen=True, gc=False):
    """A run is at its very first start."""

    run: Run


class AttemptFailed(msgspec.Struct, frozen=True, gc=False):
    """An attempt failed; `run` as it was then."""

    run: Run
    error: ErrorRecord


class RunOver(msgspec.Struct, frozen=True, gc=False):
    """A run has its one end."""

    run: Run


class StepChanged(msgspec.Struct, frozen=True, gc=False):
    """A step was written."""

    step: Step


class WaitOver(msgspec.Struct, frozen=True, gc=False):
    """A wait of an attempt that this engine holds is over, or has an event for its predicate to judge."""

    step: Step


class CancelAsked(msgspec.Struct, frozen=True, gc=False):
    """A run of this engine was asked to cancel."""

    run: Run


class PauseAsked(msgspec.Struct, frozen=True, gc=False):
    """A run of this engine was asked to pause, or no longer is."""

    run: Run


class EventRouted(msgspec.Struct, frozen=True, gc=False):
    """An event is to start a job."""

    job: str
    event: PipeEvent


class NoticeWritten(msgspec.Struct, frozen=True, gc=False):
    """People are to be told something, from the moment `ready` on."""

    id: str
    ready: float


class LimitsSet(msgspec.Struct, frozen=True, gc=False):
    """A run of a schedule is to be watched."""

    run: str


class TriggerFound(msgspec.Struct, frozen=True, gc=False):
    """A trigger in a caller's transaction, which had an id of its own, has found a run that was there."""

    id: str
    run: Run


class SlotUsed(msgspec.Struct, frozen=True, gc=False):
    """A new run was started in its own trigger, with a slot that was reserved for it."""

    run: Run


Outgoing = (
    RunAdded
    | RunChanged
    | RunStarted
    | AttemptFailed
    | RunOver
    | StepChanged
    | WaitOver
    | CancelAsked
    | PauseAsked
    | EventRouted
    | NoticeWritten
    | LimitsSet
    | TriggerFound
    | SlotUsed
)
