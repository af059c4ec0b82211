"""Triggers: events of pipes and successes of jobs on their way to the runs that they start.

An event and the notes of whom it is to start are one transaction; the runs and the removal of the note are another. So a
crash between them loses and doubles nothing, and the engine that has the job may be another than the one that saw the
event.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, NamedTuple

from taskrun.engine import messages as m
from taskrun.engine.core import refusals
from taskrun.engine.core.admit import Trigger, admit, new_id
from taskrun.engine.core.enlisted import EnlistedTriggers
from taskrun.engine.core.executors import Executors
from taskrun.engine.core.facts import ROUTES, SUBSCRIBED, SUBSCRIPTIONS, TriggerTopics
from taskrun.engine.core.journal import Journal
from taskrun.engine.core.outbox import EventRouted
from taskrun.engine.core.transaction import Transaction
from taskrun.engine.core.waits import Sent
from taskrun.model.codec import message_of
from taskrun.model.errors import DaemonError, EngineLost, JournalUnavailable, TaskrunError
from taskrun.model.records import PipeEvent
from taskrun.rules.policies import Routed

STARTED_WITHIN = 2.0  # seconds that whoever has sent an event waits to hear what it starts

logger = logging.getLogger("taskrun.engine.triggers")


class Started(NamedTuple):
    """The runs that an event has started of a job; and why the job has refused it, if it has."""

    runs: list[str]
    refused: str | None = None


class EventTriggers:
    """Starts jobs for events."""

    def __init__(self, journal: Journal, executors: Executors) -> None:
        self.open = False  # whether jobs are started
        self._journal = journal
        self._enlisted = EnlistedTriggers(journal)
        self._executors = executors
        self._under_way: dict[str, asyncio.Task[Started | None]] = {}  # by note
        journal.follow(EventRouted, lambda event: self._begin(event.job, event.event))

    async def join(self, description: m.Description) -> None:
        """Writes down what starts the jobs of an executor, and does what was left undone."""
        wanted = {job["name"]: sorted(job["triggers"]) for job in description.jobs}

        def act(t: Transaction) -> None:
            for job, topics in wanted.items():
                known = SUBSCRIPTIONS.get(t.tx, job)
                if topics:
                    SUBSCRIPTIONS.put(t.tx, job, TriggerTopics(topics, t.now))
                elif known is not None:
                    SUBSCRIPTIONS.drop(t.tx, job)
                if topics != (known.topics if known is not None else []):
                    SUBSCRIBED.put(t.tx, "", new_id())

        await self._journal.do(act)
        await self._journal.read(ROUTES.all, self._learn)

    def look(self) -> None:
        """Looks for notes that another engine has written."""
        self._enlisted.look()
        self._journal.read(ROUTES.all, self._learn).add_done_callback(_seen)

    async def close(self) -> None:
        """Leaves the rest to the next start."""
        self.open = False
        tasks = [*self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def started(self, sent: Sent) -> dict[str, Started]:
        """Returns what an event which was just sent has started, by job; not of jobs that take long to say so."""
        notes = {job: self._under_way.get(_note(job, sent.id)) for job in sent.jobs}
        asked = {job: task for job, task in notes.items() if task is not None}
        if asked:
            await asyncio.wait(asked.values(), timeout=STARTED_WITHIN)
        answers = {job: _answer(task) for job, task in asked.items()}
        return {job: one for job, one in answers.items() if one is not None}

    def _learn(self, notes: dict[str, PipeEvent]) -> None:
        for note, event in notes.items():
            self._begin(note.split(":", 1)[0], event)

    def _begin(self, job: str, event: PipeEvent) -> None:
        note = _note(job, event.id)
        peer = self._executors.with_job(job)
        if peer is None or note in self._under_way or not self.open:
            return
        self._under_way[note] = asyncio.get_running_loop().create_task(self._route(peer, job, event, note))

    async def _route(self, peer: m.Peer, job: str, event: PipeEvent, note: str) -> Started | None:
        """Starts a job for an event; returns what came of it, None if that is still to be done."""
        try:
            routed = await self._prepared(peer, job, event)
            return await self._journal.do(lambda t: _start(t, job, event, note, routed))
        except (EngineLost, JournalUnavailable):  # the note is read when the engine has begun again, or by the next one
            pass
        except DaemonError as error:
            logger.warning("%s will be started by %s later: %s", job, event.topic, error)
            self._executors.ask_again(job, peer, self._journal.clock, partial(self._begin, job, event))
        except TaskrunError:
            logger.exception("%s could not be started by %s", job, event.topic)
        finally:
            self._under_way.pop(note, None)
        return None

    async def _prepared(self, peer: m.Peer, job: str, event: PipeEvent) -> Routed:
        """Asks user code what to start; an error of it refuses the event.

        Raises:
            DaemonError: the executor is gone, or has not answered in time.
        """
        try:
            routed: Routed = await peer.ask(m.Route(topic=event.topic, data=event.data, job=job))
        except DaemonError:
            raise
        except Exception as error:
            logger.exception("the trigger of %s by %s failed", job, event.topic)
            return Routed([], message_of(error))
        return routed


def _seen(reading: asyncio.Future[Any]) -> None:
    """What could not be read now is read at the next nudge."""
    if not reading.cancelled():
        reading.exception()


def _note(job: str, event: str) -> str:
    return f"{job}:{event}"


def _answer(asked: asyncio.Task[Started | None]) -> Started | None:
    failed = not asked.done() or asked.cancelled() or asked.exception() is not None
    return None if failed else asked.result()


def _start(t: Transaction, job: str, event: PipeEvent, note: str, routed: Routed) -> Started | None:
    if ROUTES.get(t.tx, note) is None:  # another engine was faster
        return None
    source = event.topic.replace(":", " ", 1)
    runs = [admit(t, Trigger(prepared=prepared, id=new_id(), source=source)).id for prepared in routed.starts]
    if runs or routed.refused:
        refusals.note(t, job, event.topic, routed.refused)
    ROUTES.drop(t.tx, note)
    return Started(runs, routed.refused)
