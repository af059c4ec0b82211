"""The worker pool: as many workers as the configuration says, replaced when they die, when they hang, and when the code changes.

When a worker has died and none of its processes is left, its runs go on in the next one. If workers keep dying young, the next
one is started after a pause. `reload` starts new workers before it drains the old ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from itertools import chain, repeat
from typing import Any

from taskrun.daemon.paths import DaemonPaths
from taskrun.daemon.workers.last_good import LastGood
from taskrun.daemon.workers.worker_handle import PoolContext, WorkerHandle
from taskrun.daemon.workers.worker_rpc import WorkerGone
from taskrun.engine.core.core import Core
from taskrun.engine.core.executor_messages import ExecutorMessages
from taskrun.engine.messages import Describe, Description, Leave, Peer
from taskrun.model.config import Config
from taskrun.model.errors import ConfigError, DaemonError, JournalError, signal_name

SHORT_LIFE = 5.0  # seconds: a worker that died sooner is replaced after a pause
PAUSES = (0.0, 0.1, 0.3, 1.0, 3.0, 5.0)  # seconds before the next one, by how many in a row died young
LINGER = 2.0  # seconds beyond the grace for a worker to drain
READY_WITHIN = 8.0  # seconds that a request waits for a worker; a client waits 10 for its answer

LOADING = 1.0  # seconds between two looks at what becomes of code that is being loaded
IDLE = 0.2  # seconds between two looks whether a worker that has retired executes anything

logger = logging.getLogger(__name__)
NO_JOBS = Description(jobs=[], pipes=[], problems=[])


class WorkerPool:
    """The workers of one daemon.

    Parameters:
        config: reads the configuration; called again by `reload`.
        log: takes what workers print outside of runs.
    """

    def __init__(
        self, core: Core, config: Callable[[], Config], paths: DaemonPaths, log: Callable[[bytes], None]
    ) -> None:
        self.description = NO_JOBS
        self._core = core
        self._last_good = LastGood(paths.last_good)
        self._around = PoolContext(
            paths, ExecutorMessages(core), core.journal.flush, log, self._last_good, core.commands.folder
        )
        self._read_config = config
        self._config = config()
        self._workers: set[WorkerHandle] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready: set[WorkerHandle] = set()  # those that can be given work
        self._joined = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._young_deaths = 0
        self._reloads = 0
        self._spare: WorkerHandle | None = None
        self._reload_grace: float | None = None
        self._closing = False

    async def start(self) -> None:
        """Starts the workers; they become ready later."""
        self._core.on_stuck = self.give_up
        for _ in range(self._count):
            self._supervise(await self._start_worker())

    @property
    def _count(self) -> int:
        """How many there are: where none is to execute anything, one that knows the jobs."""
        return max(1, self._config.workers)

    async def ready(self) -> None:
        """Waits until there is a worker.

        Raises:
            DaemonError: none becomes ready in time.
        """
        try:
            async with asyncio.timeout(READY_WITHIN):
                while not self._ready:  # one that joined may be gone by the time that this goes on
                    await self._joined.wait()
        except TimeoutError:
            why = self._problems_text() or "the job files are still being loaded"
            raise DaemonError(f"no worker is ready: {why}; see: taskrun daemon logs") from None

    def stop_replacing(self) -> None:
        """Replaces no worker from now on."""
        self._closing = True

    def give_up(self, peer: Peer, run_id: str) -> None:
        """Replaces a worker that cannot end a run, because code of that run blocks its event loop.

        Its other runs go on in the next worker, and none of them counts as the cause of a crash.
        """
        for worker in self._workers:
            if worker.peer is peer:
                logger.error("worker %d does not end run %s within its grace: replacing it", worker.pid, run_id)
                worker.given_up.add(run_id)
                worker.kill()

    def kill(self) -> None:
        """Kills the workers that have not drained, because code blocks them."""
        for worker in self._workers:
            worker.kill()

    async def close(self) -> None:
        """Ends all workers; their runs have been drained."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(self._end_spare(), *(worker.end() for worker in self._workers))
        self._workers.clear()

    # ---- the life of a worker

    async def _start_worker(self) -> WorkerHandle:
        worker, self._spare = self._spare, None
        if worker is not None and worker.code is None:
            worker.begin(self._config)
        else:
            worker = await WorkerHandle.start(self._config, self._around)
        self._workers.add(worker)
        return worker

    async def expect_changes(self, reload_grace: float) -> None:
        """Keeps a worker ready for the next change of the code.

        Parameters:
            reload_grace: seconds for steps in flight to end by themselves when the code has changed, instead of the grace.
        """
        self._reload_grace = reload_grace
        await self._end_spare()
        if not self._closing:
            self._spare = await WorkerHandle.start_spare(self._config, self._around)

    async def _end_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.end()

    def _supervise(self, worker: WorkerHandle) -> None:
        self._keep(self._supervise_to_end(worker))

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("supervising a worker failed", exc_info=error)

    async def _supervise_to_end(self, worker: WorkerHandle) -> None:
        """Lets a worker join, waits for its end, and starts the next one unless it was retired."""
        born, reloads = asyncio.get_running_loop().time(), self._reloads
        try:
            description = await self._core.join(worker.peer)
            if not worker.retired:
                self._add(worker, description)
            await worker.ended()
        except WorkerGone:
            pass
        except Exception:
            logger.exception("worker %d could not join", worker.pid)
        if worker.retired or self._closing:
            return
        await self._release_runs(worker, asyncio.get_running_loop().time() - born)
        await self._replace(reloads)

    async def _replace(self, reloads: int) -> None:
        """Starts the next worker, however often that fails, unless a reload has replaced all of them meanwhile."""
        for pause in chain(PAUSES[1:], repeat(PAUSES[-1])):
            if self._closing or reloads != self._reloads:
                return
            try:
                worker = await self._start_worker()
            except Exception:  # for example when no process or descriptor is left: there may be one later
                logger.exception("no worker could be started")
                await asyncio.sleep(pause)
                continue
            if reloads != self._reloads:
                await self._end_unused([worker])
            else:
                self._supervise(worker)
            return

    def _add(self, worker: WorkerHandle, description: Description) -> None:
        self._take(description)
        self._ready.add(worker)
        self._joined.set()
        for problem in description.problems:
            logger.warning("a job file is broken: %s", problem)

    def _take(self, description: Description) -> None:
        """Takes note of the code that the workers have."""
        self.description = description
        self._last_good.keep(description)

    def _retire(self, worker: WorkerHandle) -> None:
        """Gives a worker no more work."""
        self._core.retire(worker.peer)
        self._ready.discard(worker)
        if not self._ready:
            self._joined.clear()

    async def _release_runs(self, worker: WorkerHandle, age: float) -> None:
        """Gives back the runs of a dead worker, once none of its processes is left; waits if it died young."""
        self._retire(worker)
        await self._remove(worker, crashed=worker.peer.gone and not worker.given_up)
        if worker.given_up:
            return
        logger.error("worker %d died: %s", worker.pid, _cause(worker.code))
        self._young_deaths = self._young_deaths + 1 if age < SHORT_LIFE else 0
        if not self.description.jobs:
            text = f"a worker died while it loaded the job files: {_cause(worker.code)}"
            self.description = Description(jobs=[], pipes=[], problems=[{"file": None, "line": None, "text": text}])
        await asyncio.sleep(PAUSES[min(self._young_deaths, len(PAUSES) - 1)])

    async def _remove(self, worker: WorkerHandle, crashed: bool) -> None:
        await worker.end()
        self._workers.discard(worker)
        await self._core.leave(worker.peer, crashed=crashed)

    def _problems_text(self) -> str:
        return "; ".join(str(problem.get("text") or problem) for problem in self.description.problems)

    # ---- new code

    async def reload(self, patient: bool = False, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Replaces the workers by new ones with the code as it is on the disk now. A broken file keeps its last good source.

        Nothing is replaced if that leaves the code as it was, nor if a file that worked cannot even be loaded as it last was.
        Runs of the old workers end or are unwound within the grace, and go on in the new ones.

        Parameters:
            patient: whether the old workers execute what they have until it ends or waits, so that no step is cut off.
            meanwhile: called now and then while the code is loaded, however long that takes; what it raises ends that.

        Returns:
            `reloaded`; `lost`, whether that was not done since it would have lost jobs; `problems`; and the names of jobs
            that were `added`, `removed` or `changed`.
        """
        async with self._reloading:
            kept, self._config = self._config, self._last_good_config()
            if (kept.env, kept.root) != (self._config.env, self._config.root):
                await self._end_spare()
            before = self.description
            fresh: list[WorkerHandle] = []
            try:
                for _ in range(self._count):
                    fresh.append(await self._start_worker())
                after = await self._inspect(fresh, meanwhile)
            except BaseException:
                self._config = kept
                await self._end_unused(fresh)
                raise
            lost = _newly_broken(before, after)
            if lost or (_any_kept(after) and kept == self._config and _same_code(before, after)):
                self._config = kept
                await self._end_unused(fresh)
                if not lost:
                    self._take(after)
                return {
                    "reloaded": False,
                    "lost": lost,
                    "problems": after.problems,
                    "added": [],
                    "removed": [],
                    "changed": [],
                }
            await self._replace_all(fresh, patient)
            return {"reloaded": True, "lost": False, "problems": after.problems, **_differences(before, after)}

    def _last_good_config(self) -> Config:
        try:
            return self._read_config()
        except ConfigError:  # told by whoever follows the file
            return self._config

    async def _inspect(self, fresh: Sequence[WorkerHandle], meanwhile: Callable[[], None]) -> Description:
        """Asks new workers for their jobs."""
        asked = asyncio.gather(*(worker.peer.ask(Describe()) for worker in fresh))
        try:
            while not (await asyncio.wait([asked], timeout=LOADING))[0]:
                meanwhile()
            first: Description = asked.result()[0]
            return first
        finally:
            asked.cancel()

    async def _replace_all(self, fresh: Sequence[WorkerHandle], patient: bool) -> None:
        self._reloads += 1
        old = self._workers - set(fresh)
        for worker in fresh:
            self._supervise(worker)
        for worker in old:
            worker.retired = True
            self._retire(worker)
        drains = [self._keep(self._drain(worker, patient)) for worker in old]
        await self.ready()
        if (
            self._reload_grace is None and not patient
        ):  # `taskrun watch` does not wait: the next change may come at once
            await asyncio.gather(*drains)

    async def _drain(self, worker: WorkerHandle, patient: bool) -> None:
        if patient:
            worker.peer.tell(Leave())
            await self._idle(worker)
        grace = self._config.grace if self._reload_grace is None else min(self._reload_grace, self._config.grace)
        with suppress(WorkerGone, TimeoutError, JournalError):
            async with asyncio.timeout(grace + LINGER):
                await self._core.hooks.drain(worker.peer, grace)
        await self._remove(worker, crashed=False)

    async def _idle(self, worker: WorkerHandle) -> None:
        """Waits until a worker executes nothing, is gone, or the daemon stops."""
        while True:
            if self._closing or worker.peer.gone or not self._core.attempts.executing(worker.peer):
                return
            await asyncio.sleep(IDLE)

    async def _end_unused(self, workers: Sequence[WorkerHandle]) -> None:
        """Ends workers that never joined."""
        await asyncio.gather(*(worker.end() for worker in workers))
        self._workers.difference_update(workers)


def _cause(code: int | None) -> str:
    """Returns how a process ended."""
    if code is not None and code < 0:
        return signal_name(-code)
    return f"exit code {code}"


def _newly_broken(before: Description, after: Description) -> bool:
    """Whether a file that could be loaded no longer can, not even in its last good version."""
    worked = {*before.files, "taskrun.toml"} - _broken(before)
    return bool(worked & _broken(after))


def _broken(description: Description) -> set[str]:
    """Returns the files that could not be loaded, and those in which that was found."""
    lost = [problem for problem in description.problems if not problem.get("kept")]
    return {str(problem.get(field) or "") for problem in lost for field in ("file", "loading")}


def _any_kept(description: Description) -> bool:
    return any(problem.get("kept") for problem in description.problems)


def _same_code(before: Description, after: Description) -> bool:
    return before.sources == after.sources and before.jobs == after.jobs


def _differences(before: Description, after: Description) -> dict[str, list[str]]:
    old, new = ({job["name"]: job for job in one.jobs} for one in (before, after))
    return {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
    }
