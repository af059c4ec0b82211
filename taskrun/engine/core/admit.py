"""From a trigger to a run: admission inside one transaction. Used by the core for users, schedules, pipes and parents alike."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from taskrun.engine.core import dependents, run_lifecycle, waits
from taskrun.engine.core.fact_kind import PAUSED
from taskrun.engine.core.facts import BURSTS, INTENTS, THROTTLES
from taskrun.engine.core.transaction import Transaction
from taskrun.model.errors import NotFound
from taskrun.model.records import Awaited, Cause, Run, Status, Step, StepKind, StepStatus
from taskrun.model.tags import tags_of
from taskrun.rules.admission import BurstFact, Facts, Request, decide
from taskrun.rules.policies import Prepared

ALPHABET = b"23456789abcdefghjkmnpqrstuvwxyz"  # without look-alikes
_LETTERS = bytes(ALPHABET[byte % len(ALPHABET)] for byte in range(256))


class Trigger(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A validated request for a run.

    Parameters:
        id: the id of the new run.
        delay_until: Unix time before which it does not start.
        intent: a key made by the client; a repeated request with the same key finds the same run.
        name: shown in place of the job's.
        after: the runs that it starts after, by their whole ids.
        tags: they win over those of the parent, and these over those of the job.
        steps: finished ones with which it begins.
    """

    prepared: Prepared
    id: str
    source: str = ""
    delay_until: float | None = None
    parent: str | None = None
    slot: float | None = None
    retried_from: str | None = None
    steps: Sequence[Step] = ()
    intent: str | None = None
    name: str | None = None
    tags: dict[str, str] = {}
    after: Sequence[Awaited] = ()


def new_id() -> str:
    """Returns a random id: 12 characters, of which any 6 will do on a screen."""
    return os.urandom(12).translate(_LETTERS).decode()


def admit(t: Transaction, trigger: Trigger, reserved: bool = False) -> Run:
    """Admits a trigger by the rules; returns its run, or one that was there already and has another id.

    Parameters:
        reserved: whether a slot of this engine is reserved for it.

    Raises:
        NotFound: the run that a repeated request found before was pruned; or one that it is to start after is not there.
    """
    tx, terms = t.tx, trigger.prepared.terms
    if trigger.intent is not None and (known := INTENTS.get(tx, trigger.intent)) is not None:
        run = t.run(known)
        if run is None:
            raise NotFound(f"run {known} of this request was pruned")
        return run
    throttle = None if terms.throttle is None or terms.throttle.mode != "discard" else terms.throttle.id or ""
    debounce = None if terms.debounce is None else terms.debounce.id or ""
    facts = Facts(
        known=None if terms.key is None else tx.run_by_key(trigger.prepared.job, terms.key),
        accepted=None if throttle is None else THROTTLES.get(tx, throttle),
        burst=None if debounce is None else tx.run_by_debounce(debounce),
        kept=(None if debounce is None else BURSTS.get(tx, debounce)) or BurstFact(),
    )
    paused = PAUSED.get(tx, trigger.prepared.job) is not None
    run = _run(t, trigger)
    after = dependents.looked_up(t, trigger.after) if trigger.after else ()
    request = Request(run=run, terms=terms, delay_until=trigger.delay_until, after=after, paused=paused)
    decision = decide(request, facts, t.now)
    if trigger.intent is not None:
        INTENTS.put(tx, trigger.intent, decision.run.id)
    if not decision.new:
        return decision.run
    if decision.superseded is not None:
        run_lifecycle.end(t, decision.superseded.id, Status.CANCELLED, cause=Cause.DEBOUNCE)
    if throttle is not None and decision.accepted is not None:
        THROTTLES.put(tx, throttle, decision.accepted)
    if debounce is not None and decision.kept is not None:
        BURSTS.put(tx, debounce, decision.kept)
    run = run_lifecycle.add(t, decision.run, reserved and not trigger.steps)
    return _with_steps(t, run, trigger.steps) if trigger.steps else run


def _with_steps(t: Transaction, run: Run, steps: Iterable[Step]) -> Run:
    """Writes down finished steps with which a run begins."""
    for step in steps:
        t.save_step(replace(step, run=run.id))
    return t.set(run.id, inherited=t.next_order())


def start_child(t: Transaction, step: Step, prepared: Prepared, wait: bool, reserved: bool = False) -> Step:
    """Triggers the child of a step, or finds the one that it has; with `wait` the step ends when the child does."""
    t.must_hold(step.run)
    known = t.tx.step(step.run, step.key)
    if known is not None and (known.child is not None or known.finished):  # finished: it was cancelled on its way here
        return known
    child = admit(t, Trigger(prepared=prepared, id=new_id(), source="run", parent=step.run), reserved)
    begun = replace(step, child=child.id, topic=f"run:{child.id}" if wait else None)
    if not wait:
        output = msgspec.json.encode(child.id).decode()
        return t.save_step(
            replace(begun, status=StepStatus.SUCCEEDED, output=output, ended_at=t.now, order=t.next_order())
        )
    t.save_step(begun)
    return waits.finish_with(t, begun, child) if child.ended else begun


def start_again(t: Transaction, ended: Run, prepared: Prepared, from_step: str | None) -> Run:
    """Starts a new run that keeps the finished steps of an ended one before `from_step`, or all; errors are dropped.

    Raises:
        NotFound: the run has no such step.
    """
    kept = _kept(t.tx.steps(ended.id), from_step)
    terms = replace(prepared.terms, key=None, debounce=None)  # a retry is meant, not deduplicated
    trigger = Trigger(
        prepared=replace(prepared, terms=terms),
        id=new_id(),
        source=f"retry of {ended.id}",
        retried_from=ended.id,
        name=ended.name,
        tags=tags_of(ended),
        steps=kept,
    )
    return admit(t, trigger)


def _kept(steps: list[Step], from_step: str | None) -> list[Step]:
    failed = run_lifecycle.first_failures(steps)
    if from_step is not None:
        names = [step.key for step in steps]
        at = names.index(from_step) if from_step in names else _by_name(steps, from_step)
        steps = steps[:at]
    return [step for step in steps if run_lifecycle.is_kept(step, failed)]


def _by_name(steps: list[Step], name: str) -> int:
    for at, step in enumerate(steps):
        if step.name == name:
            return at
    known = ", ".join(step.key for step in steps if step.kind is not StepKind.VALUE) or "none"
    raise NotFound(f'the run has no step "{name}" (there are: {known})')


def _run(t: Transaction, trigger: Trigger) -> Run:
    parent = t.run(trigger.parent)
    tags = trigger.prepared.terms.tags | (tags_of(parent) if parent is not None else {}) | trigger.tags
    return Run(
        id=trigger.id,
        job=trigger.prepared.job,
        created_at=t.state.moments.trigger(t.now),
        parent=trigger.parent,
        source=trigger.source,
        slot=trigger.slot,
        retried_from=trigger.retried_from,
        input=trigger.prepared.input,
        secrets=trigger.prepared.secrets,
        name=trigger.name,
        tags=msgspec.json.encode(tags).decode() if tags else None,
    )
