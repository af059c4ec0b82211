"""Addresses of waits: `pipe:NAME#LEAF` instead of `pipe:NAME`, so that an event finds the waits that it may match by an index."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from taskrun.engine.core.facts import PATHS
from taskrun.engine.core.transaction import Transaction
from taskrun.model.records import PipeEvent, Step
from taskrun.rules.matching import address, leaf

ANYTHING = "{}"
MOST_PATHS = 32  # of one topic; waits with others are found the slow way


def topic_of(step: Step) -> str:
    """Returns the topic of a wait without its address."""
    return (step.topic or "").partition("#")[0]


def subject(event: PipeEvent) -> Any:
    """Returns what waits match: the event, for a job the input of its run."""
    return msgspec.json.decode(event.data if event.input is None else event.input)


def addressed(t: Transaction, step: Step) -> Step:
    """Puts the address of its pattern into the topic of a wait, and the address's path among those tried with each event."""
    topic = topic_of(step)
    if step.match is None or step.match == ANYTHING:
        return step
    pattern, known = msgspec.json.decode(step.match), PATHS.get(t.tx, topic) or []
    path = leaf(pattern, known)
    if path is None or (path not in known and len(known) >= MOST_PATHS):
        return step
    if path not in known:
        PATHS.put(t.tx, topic, [*known, path])
    return replace(step, topic=f"{topic}#{address(pattern, path)}")


def topics_of(t: Transaction, event: PipeEvent) -> list[str]:
    """Returns the topics of the waits that an event may match: its own, and those with an address."""
    paths = PATHS.get(t.tx, event.topic)
    if not paths:
        return [event.topic]
    matched = subject(event)
    found = (address(matched, path) for path in paths)
    return [event.topic, *(f"{event.topic}#{one}" for one in found if one is not None)]
