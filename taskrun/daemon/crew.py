"""The crew: as many workers as the configuration says, replaced when they die and when the code changes.

Started by the daemon. A worker that dies is buried, its runs go on in the next one; one that dies at once again and again is
waited with. `reload` brings up fresh workers first and lets the old ones go then.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from itertools import chain, repeat
from typing import Any

from taskrun.daemon.home import Home
from taskrun.daemon.pipe import WorkerGone
from taskrun.daemon.worker_process import WorkerProcess
from taskrun.engine.core.core import Core
from taskrun.engine.core.executor_messages import Reception
from taskrun.engine.messages import Describe, Description, Drain
from taskrun.model.config import Config
from taskrun.model.errors import DaemonError

SHORT_LIFE = 5.0  # seconds: a worker that lived less is not replaced at once
PAUSES = (0.0, 0.1, 0.3, 1.0, 3.0, 5.0)  # seconds before the next, by how many died young in a row
LINGER = 2.0  # seconds beyond the grace for a worker to drain
READY_WITHIN = 8.0  # seconds that a request waits for a worker; a client waits 10 for its answer

logger = logging.getLogger(__name__)
NOBODY = Description(jobs=[], pipes=[], problems=[])


class Crew:
    """The workers of one daemon.

    Parameters:
        config: read anew by `reload`.
        log: takes what workers print outside of runs.
    """

    def __init__(self, core: Core, config: Callable[[], Config], home: Home, log: Callable[[bytes], None]) -> None:
        self.description = NOBODY
        self._core = core
        self._reception = Reception(core)
        self._read_config = config
        self._config = config()
        self._home = home
        self._log = log
        self._workers: set[WorkerProcess] = set()
        self._tending: set[asyncio.Task[None]] = set()
        self._able: set[WorkerProcess] = set()  # those that joined
        self._joined = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._young_deaths = 0
        self._reloads = 0
        self._spare: WorkerProcess | None = None
        self._hand_over: float | None = None
        self._closing = False

    async def start(self) -> None:
        """Brings up the workers; they are ready later."""
        for _ in range(self._config.workers):
            self._tend(await self._hire())

    async def ready(self) -> None:
        """Waits until there is a worker.

        Raises:
            DaemonError: none comes.
        """
        try:
            async with asyncio.timeout(READY_WITHIN):
                while not self._able:  # one that joined may be gone by the time that this is awake
                    await self._joined.wait()
        except TimeoutError:
            why = self._problems_text() or "the job files are still being loaded"
            raise DaemonError(f"no worker is ready: {why}; see: taskrun daemon logs") from None

    def hire_no_more(self) -> None:
        """Replaces nobody from now on."""
        self._closing = True

    def kill(self) -> None:
        """Kills workers that do not drain: code that blocks them hears nothing."""
        for worker in self._workers:
            worker.kill()

    async def close(self) -> None:
        """Ends all workers; their runs have been drained."""
        for task in self._tending:
            task.cancel()
        await asyncio.gather(*self._tending, return_exceptions=True)
        await asyncio.gather(self._dismiss_spare(), *(worker.bury() for worker in self._workers))
        self._workers.clear()

    # ---- a worker's life

    async def _hire(self) -> WorkerProcess:
        worker, self._spare = self._spare, None
        if worker is not None and worker.code is None:
            worker.begin(self._config)
        else:
            worker = await WorkerProcess.start(self._config, self._home, self._reception, self._log)
        self._workers.add(worker)
        return worker

    async def expect_changes(self, hand_over: float) -> None:
        """Has a worker ready for the next change of the code.

        Parameters:
            hand_over: seconds for what is in flight to end by itself when the code has changed, instead of the grace.
        """
        self._hand_over = hand_over
        await self._dismiss_spare()
        if not self._closing:
            self._spare = await WorkerProcess.spare(self._config, self._home, self._reception, self._log)

    async def _dismiss_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.bury()

    def _tend(self, worker: WorkerProcess) -> None:
        self._keep(self._look_after(worker))

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tending.add(task)
        task.add_done_callback(self._no_longer_tended)
        return task

    def _no_longer_tended(self, task: asyncio.Task[None]) -> None:
        self._tending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a worker could not be looked after", exc_info=error)

    async def _look_after(self, worker: WorkerProcess) -> None:
        """Lets a worker join, waits for its end, and brings up the next one, unless it was told to go."""
        born, reloads = asyncio.get_running_loop().time(), self._reloads
        try:
            self._welcome(worker, await self._core.join(worker.peer))
            await worker.ended()
        except WorkerGone:
            pass
        except Exception:
            logger.exception("worker %d could not join", worker.pid)
        if worker.retired or self._closing:
            return
        await self._mourn(worker, asyncio.get_running_loop().time() - born)
        await self._replace(reloads)

    async def _replace(self, reloads: int) -> None:
        """Brings up the next worker, however often that fails, unless a reload has brought up all of them meanwhile."""
        for pause in chain(PAUSES[1:], repeat(PAUSES[-1])):
            if self._closing or reloads != self._reloads:
                return
            try:
                worker = await self._hire()
            except Exception:  # no process or no file to be had, say: there may be one later
                logger.exception("no worker could be started")
                await asyncio.sleep(pause)
                continue
            if reloads != self._reloads:
                await self._dismiss([worker])
            else:
                self._tend(worker)
            return

    def _welcome(self, worker: WorkerProcess, description: Description) -> None:
        self.description = description
        self._able.add(worker)
        self._joined.set()
        for problem in description.problems:
            logger.warning("a job file is broken: %s", problem)

    def _retire(self, worker: WorkerProcess) -> None:
        """Gives a worker no more work."""
        self._core.retire(worker.peer)
        self._able.discard(worker)
        if not self._able:
            self._joined.clear()

    async def _mourn(self, worker: WorkerProcess, age: float) -> None:
        """Lets the runs of a dead worker go, once nothing of it is left, and waits if it died young."""
        self._retire(worker)
        await self._part(worker, crashed=worker.peer.gone)
        logger.error("worker %d died: %s", worker.pid, _cause(worker.code))
        self._young_deaths = self._young_deaths + 1 if age < SHORT_LIFE else 0
        if not self.description.jobs:
            text = f"a worker died while it loaded the job files: {_cause(worker.code)}"
            self.description = Description(jobs=[], pipes=[], problems=[{"file": None, "line": None, "text": text}])
        await asyncio.sleep(PAUSES[min(self._young_deaths, len(PAUSES) - 1)])

    async def _part(self, worker: WorkerProcess, crashed: bool) -> None:
        await worker.bury()
        self._workers.discard(worker)
        await self._core.leave(worker.peer, crashed=crashed)

    def _problems_text(self) -> str:
        return "; ".join(str(problem.get("text") or problem) for problem in self.description.problems)

    # ---- new code

    async def reload(self) -> dict[str, Any]:
        """Changes to workers with the code as it is on the disk now, unless a file is newly broken.

        What the old workers have under way ends or is unwound within the grace, and goes on in the new ones.

        Returns:
            `reloaded`, `problems`, and the names of jobs that were `added`, `removed` or `changed`.
        """
        async with self._reloading:
            kept, self._config = self._config, self._read_config()
            if (kept.env, kept.root) != (self._config.env, self._config.root):
                await self._dismiss_spare()
            before = self.description
            fresh: list[WorkerProcess] = []
            try:
                for _ in range(self._config.workers):
                    fresh.append(await self._hire())
                after = await self._inspect(fresh)
            except BaseException:
                self._config = kept
                await self._dismiss(fresh)
                raise
            if _newly_broken(before, after):
                self._config = kept
                await self._dismiss(fresh)
                return {"reloaded": False, "problems": after.problems, "added": [], "removed": [], "changed": []}
            await self._change_to(fresh)
            return {"reloaded": True, "problems": after.problems, **_differences(before, after)}

    async def _inspect(self, fresh: Sequence[WorkerProcess]) -> Description:
        """Asks new workers what they have."""
        async with asyncio.timeout(READY_WITHIN):
            descriptions = await asyncio.gather(*(worker.peer.ask(Describe()) for worker in fresh))
        first: Description = descriptions[0]
        return first

    async def _change_to(self, fresh: Sequence[WorkerProcess]) -> None:
        self._reloads += 1
        old = self._workers - set(fresh)
        for worker in fresh:
            self._tend(worker)
        for worker in old:
            worker.retired = True
            self._retire(worker)
        partings = [self._keep(self._let_go(worker)) for worker in old]
        await self.ready()
        if self._hand_over is None:  # who watches the code does not wait: the next change may come at once
            await asyncio.gather(*partings)

    async def _let_go(self, worker: WorkerProcess) -> None:
        grace = self._config.grace if self._hand_over is None else min(self._hand_over, self._config.grace)
        with suppress(WorkerGone, TimeoutError):
            async with asyncio.timeout(grace + LINGER):
                await worker.peer.ask(Drain(grace))
        await self._part(worker, crashed=False)

    async def _dismiss(self, workers: Sequence[WorkerProcess]) -> None:
        """Ends workers that never joined."""
        await asyncio.gather(*(worker.bury() for worker in workers))
        self._workers.difference_update(workers)


def _cause(code: int | None) -> str:
    """Says how a process ended."""
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _newly_broken(before: Description, after: Description) -> bool:
    known = {problem.get("file") for problem in before.problems}
    return any(problem.get("file") not in known for problem in after.problems)


def _differences(before: Description, after: Description) -> dict[str, list[str]]:
    old, new = ({job["name"]: job for job in one.jobs} for one in (before, after))
    return {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
    }
