"""Triggers: events of pipes and successes of jobs on their way to the runs that they start.

An event and the notes of whom it is to start are one transaction; the runs and the removal of the note are another. So a crash
between them loses and doubles nothing, and the engine that has the job may be another than the one that saw the event.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from taskrun.engine import messages as m
from taskrun.engine.core.admit import Trigger, admit, new_id
from taskrun.engine.core.executors import Dispatch
from taskrun.engine.core.transaction import Book
from taskrun.engine.core.transactions import Ledgers
from taskrun.model.errors import DaemonError, TaskrunError
from taskrun.model.records import PipeEvent
from taskrun.rules.policies import Prepared
from taskrun.stores.base import Tx

logger = logging.getLogger("taskrun.engine.core.event_triggers")
SUBSCRIPTION = "trigger:"  # fact `trigger:JOB` is the JSON list of the topics that start a job
NOTE = "route:"  # fact `route:JOB:EVENT` is an event that is still to start a job


class Routing:
    """Starts jobs for events."""

    def __init__(self, ledgers: Ledgers, dispatch: Dispatch) -> None:
        self._ledgers = ledgers
        self._dispatch = dispatch
        self._under_way: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def join(self, description: m.Description) -> None:
        """Writes down what starts the jobs of an executor, and does what was left undone."""
        wanted = {job["name"]: sorted(job["triggers"]) for job in description.jobs}

        def act(book: Book) -> None:
            for job, topics in wanted.items():
                key, value = f"{SUBSCRIPTION}{job}", msgspec.json.encode(topics).decode()
                if book.tx.get(key) != (value if topics else None):
                    book.tx.put(key, value if topics else None)

        await self._ledgers.do(act)
        await self._ledgers.journal.write(self._read, self._learn)

    def look(self) -> None:
        """Looks for subscriptions and notes that another engine has written."""
        self._ledgers.journal.post(self._read, self._learn)

    def follow(self, book: Book) -> None:
        """Acts on the notes of a transaction."""
        for job, event in book.routes:
            self._begin(job, event)

    async def close(self) -> None:
        """Leaves the rest to the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _read(self, tx: Tx) -> tuple[dict[str, str], dict[str, str]]:
        return tx.facts(SUBSCRIPTION), tx.facts(NOTE)

    def _learn(self, found: tuple[dict[str, str], dict[str, str]]) -> None:
        subscriptions, notes = found
        routed: dict[str, list[str]] = {}
        for key, topics in subscriptions.items():
            for topic in msgspec.json.decode(topics, type=list[str]):
                routed.setdefault(topic, []).append(key.removeprefix(SUBSCRIPTION))
        self._ledgers.routed = routed
        for key, text in notes.items():
            self._begin(key.removeprefix(NOTE).split(":", 1)[0], msgspec.json.decode(text, type=PipeEvent))

    def _begin(self, job: str, event: PipeEvent) -> None:
        note = note_of(job, event)
        peer = self._dispatch.peer_for(job)
        if peer is None or note in self._under_way or not self._dispatch.open:
            return
        self._under_way.add(note)
        task = asyncio.get_running_loop().create_task(self._route(peer, job, event, note))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _route(self, peer: m.Peer, job: str, event: PipeEvent, note: str) -> None:
        try:
            starts = await self._prepared(peer, job, event)
            await self._ledgers.do(lambda book: _start(book, event, note, starts))
        except DaemonError as error:
            logger.warning("%s is started by %s later: %s", job, event.topic, error)
            asyncio.get_running_loop().call_soon(self._ask_another, peer, job, event)
        except TaskrunError:
            logger.exception("%s could not be started by %s", job, event.topic)
        finally:
            self._under_way.discard(note)

    def _ask_another(self, gone: m.Peer, job: str, event: PipeEvent) -> None:
        """Asks an executor that has joined meanwhile; else the note is read when the next one joins."""
        if self._dispatch.peer_for(job) is not gone:
            self._begin(job, event)

    async def _prepared(self, peer: m.Peer, job: str, event: PipeEvent) -> list[Prepared]:
        """Asks user code what to start; what it refuses is logged, and the event is done with.

        Raises:
            DaemonError: the executor is gone, and nobody has answered.
        """
        try:
            starts: list[Prepared] = await peer.ask(m.Route(topic=event.topic, data=event.data))
        except DaemonError:
            raise
        except Exception:
            logger.exception("the trigger of %s by %s failed", job, event.topic)
            return []
        return [prepared for prepared in starts if prepared.job == job]


def note_of(job: str, event: PipeEvent) -> str:
    """Returns the key of the note that an event is to start a job."""
    return f"{NOTE}{job}:{event.id}"


def _start(book: Book, event: PipeEvent, note: str, starts: list[Prepared]) -> None:
    if book.tx.get(note) is None:  # another engine was faster
        return
    for prepared in starts:
        admit(book, Trigger(prepared=prepared, id=new_id(), source=event.topic.replace(":", " ", 1)))
    book.tx.put(note, None)
