"""The executors that have joined, and what each has. Part of the core."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from taskrun.engine.core.transaction import EngineState
from taskrun.engine.messages import Description, Peer
from taskrun.model.clock import Clock

AGAIN = 1.0  # seconds before an executor is asked once more that has not answered in time


class Executors:
    """Executors by the jobs and pipes that they have.

    Parameters:
        only: jobs whose runs are executed; others are known all the same, so that they can be triggered. None for all.
    """

    def __init__(self, state: EngineState, only: frozenset[str] | None) -> None:
        self.load: Counter[Peer] = Counter()  # slots in use by each
        self._state = state
        self._only = only
        self._joining: set[Peer] = set()  # they have been asked what they have
        self._described: dict[Peer, Description] = {}
        self._retired: dict[Peer, Description] = {}  # they get no more work, and end what they have
        self._with_job: dict[str, list[Peer]] = {}
        self._with_pipe: dict[str, Peer] = {}

    @property
    def peers(self) -> list[Peer]:
        """Those that can be given work."""
        return list(self._described)

    def expect(self, peer: Peer) -> None:
        """Notes that an executor is about to join."""
        self._joining.add(peer)

    def join(self, peer: Peer, description: Description) -> bool:
        """Adds an executor that was expected; returns False when it has retired meanwhile."""
        if peer not in self._joining:
            return False
        self._joining.discard(peer)
        self._described[peer] = description
        self._index()
        return True

    def retire(self, peer: Peer) -> None:
        """Gives an executor no more work."""
        self._joining.discard(peer)
        if (description := self._described.pop(peer, None)) is not None:
            self._retired[peer] = description
            self._index()

    def leave(self, peer: Peer) -> None:
        """Removes an executor, of which none of its processes is left."""
        self.retire(peer)
        self._retired.pop(peer, None)

    def gave_back(self, peer: Peer) -> None:
        """Notes that a slot of an executor is free again; one without any is forgotten, as it may have left."""
        self.load[peer] -= 1
        if not self.load[peer]:
            del self.load[peer]

    def with_job(self, job: str) -> Peer | None:
        """Returns the least busy executor that has a job."""
        able = self._with_job.get(job)
        if able is None:
            return None
        return able[0] if len(able) == 1 else min(able, key=self.load.__getitem__)

    def with_pipe(self, pipe: str) -> Peer | None:
        """Returns an executor that has a pipe."""
        return self._with_pipe.get(pipe)

    def ask_again(self, job: str, silent: Peer, clock: Clock, ask: Callable[[], None]) -> None:
        """Has another executor with a job asked soon, or in a while the same, which may only be late. Else whoever joins asks.

        Parameters:
            silent: the one that has not answered.
        """

        def look() -> None:
            if self.with_job(job) is not silent:
                ask()
            else:
                clock.alarm(AGAIN, ask)

        asyncio.get_running_loop().call_soon(look)

    def description(self, peer: Peer) -> Description | None:
        """Returns what an executor has, retired or not; None when it has left."""
        return self._described.get(peer) or self._retired.get(peer)

    def _index(self) -> None:
        self._with_job, self._with_pipe = {}, {}
        for peer, description in self._described.items():
            for name in description.names:
                self._with_job.setdefault(name, []).append(peer)
            for pipe in description.pipes:
                self._with_pipe.setdefault(pipe["name"], peer)
        self._state.jobs = sorted(self._with_job if self._only is None else self._only & self._with_job.keys())
        self._state.awaits_executors = not self._described
