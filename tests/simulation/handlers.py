"""Builds the jobs of a plan, as code of one process would define them, and tells a watch what their steps do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from copy import copy
from typing import Any, Protocol

import taskrun
from taskrun import Concurrency, Debounce, Job, Pipe, Throttle
from taskrun.declarations.registry import Registry
from taskrun.model.errors import RunError, TaskrunError, WaitTimeout
from tests.simulation.plans import JobPlan, Node
from tests.simulation.timeline import Process

Piece = Callable[["Around"], Coroutine[Any, Any, Any]]


class Boom(Exception):
    """What a step or a handler of the simulation fails with."""


class Watch(Protocol):
    """Sees, from outside of the engine, what user code does."""

    def begins(
        self, process: Process, run: str, step: str, limit: Any, attempt: int, given: Any, exact: bool
    ) -> object:
        """A body begins; `exact`: what it is given must be the same on replay."""
        ...

    def ends(self, token: object) -> None:
        """A body ends, however."""
        ...

    def tries(self, run: str, step: str) -> int:
        """Counts the tries of a step of a run, over all crashes."""
        ...

    def settled(self, run: str, kind: str) -> None:
        """Listeners hear of an end."""
        ...

    def entered(self, process: Process, run: str, attempt: int) -> object:
        """A handler begins."""
        ...

    def left(self, token: object) -> None:
        """A handler ends."""
        ...


class Around:
    """What the pieces of one handler share."""

    def __init__(self, code: Code, n: int, exact: bool) -> None:
        here = taskrun.current()
        self.code = code
        self.n = n
        # no step is cut off by its siblings or the time, which a replay need not repeat to the microsecond
        self.exact = exact
        self.run, self.attempt = here.run_id, here.attempt
        self.last: Any = None  # the newest value, which the next step is given

    def branch(self) -> Around:
        """Returns the same for code beside or within, whose order is its own."""
        return copy(self)


@taskrun.job(name="notify", input=dict[str, Any], retry=0)
async def notify(message: dict[str, Any]) -> None:
    """Takes the place of the job that tells people what happens."""


class Code:
    """The jobs and pipes as one process has them."""

    def __init__(self, plans: list[JobPlan], process: Process, watch: Watch) -> None:
        self.process = process
        self.watch = watch
        self.orders: Pipe = taskrun.pipe("orders")  # starts jobs
        self.news: Pipe = taskrun.pipe("news")  # is waited for
        self.jobs: dict[str, Job] = {}
        for plan in plans:
            self.jobs[plan.name] = self._job(plan)
        self.registry = Registry([*self.jobs.values(), notify], [self.orders, self.news])

    def _job(self, plan: JobPlan) -> Job:
        body = self._piece(plan.body)
        exact = not plan.body.has("timeout", "group")

        async def execute(n: int) -> int:
            around = Around(self, n, exact)
            token = self.watch.entered(self.process, around.run, around.attempt)
            try:
                await body(around)
            finally:
                self.watch.left(token)
            return n

        if plan.strict:

            async def handler(n: int, m: int) -> int:
                return await execute(n)
        else:

            async def handler(n: int = 0) -> int:  # type: ignore[misc]
                return await execute(n)

        made: Job = taskrun.job(name=plan.name, **self._options(plan.options))(handler)
        return made

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        options = dict(given)
        if "concurrency" in given:
            options["concurrency"] = limit(*given["concurrency"])
        if "throttle" in given:
            options["throttle"] = Throttle(*given["throttle"])
        if "debounce" in given:
            duration, mode, timeout = given["debounce"]
            options["debounce"] = Debounce(None, duration, mode, timeout)
        if given.get("priority") == "n":
            options["priority"] = lambda given: given["n"]
        if "key" in given:
            options["key"] = lambda given: f"key{given['n']}"
        if given.get("trigger") == "pipe":
            options["trigger"] = [self.orders.into(lambda event: {"n": event["n"]})]
        elif "trigger" in given and given["trigger"] in self.jobs:
            options["trigger"] = [self.jobs[given["trigger"]].into(lambda output: {"n": output})]
        elif "trigger" in given:
            del options["trigger"]
        return options

    # ---- pieces

    def _piece(self, node: Node) -> Piece:
        made: Piece = getattr(self, f"_{node.kind}")(node, *[self._piece(inner) for inner in node.inner])
        return made

    def _block(self, node: Node, *inner: Piece) -> Piece:
        async def go(around: Around) -> None:
            for piece in inner:
                await piece(around)

        return go

    def _step(self, node: Node) -> Piece:
        name, args = f"step{node.id}", node.args
        lasts, fails, terms = args["lasts"], args.get("fails", 0), args.get("limit")
        options: dict[str, Any] = {key: args[key] for key in ("retry", "backoff", "timeout") if key in args}
        if terms is not None:
            options["concurrency"] = limit(*terms)
        error: type[Exception] = taskrun.Fatal if args.get("fatal") else Boom

        async def go(around: Around) -> None:
            async def body(given: Any) -> int:
                token = self.watch.begins(self.process, around.run, name, terms, around.attempt, given, around.exact)
                try:
                    if lasts:
                        await asyncio.sleep(lasts)
                    if self.watch.tries(around.run, name) <= fails:
                        raise error(name)
                    return node.id
                finally:
                    self.watch.ends(token)

            def plain(given: Any) -> int:
                token = self.watch.begins(self.process, around.run, name, terms, around.attempt, given, around.exact)
                try:
                    if self.watch.tries(around.run, name) <= fails:
                        raise error(name)
                    return node.id
                finally:
                    self.watch.ends(token)

            try:
                around.last = await taskrun.run(name, plain if args.get("plain") else body, around.last, **options)
            except (Boom, TaskrunError):
                if not args.get("caught"):
                    raise

        return go

    def _sleep(self, node: Node) -> Piece:
        async def go(around: Around) -> None:
            await taskrun.sleep(node.args["lasts"])

        return go

    def _value(self, node: Node) -> Piece:
        make: Any = getattr(taskrun, node.args["what"])

        async def go(around: Around) -> None:
            around.last = str(make())

        return go

    def _plain(self, node: Node) -> Piece:
        async def go(around: Around) -> None:
            await asyncio.sleep(node.args["lasts"])

        return go

    def _note(self, node: Node) -> Piece:
        async def go(around: Around) -> None:
            if node.args["what"] == "log":
                taskrun.log.info("line %d", node.id)
            else:
                taskrun.progress(node.id, 100)

        return go

    def _wait(self, node: Node) -> Piece:
        how, timeout = node.args["match"], node.args["timeout"]

        async def go(around: Around) -> None:
            match: Any = None
            if how == "mapping":
                match = {"n": around.n}
            elif how == "predicate":
                match = lambda event: event["n"] >= around.n  # noqa: E731
            try:
                around.last = await self.news.wait_for(match, timeout=timeout)
            except WaitTimeout:
                around.last = "timeout"

        return go

    def _join(self, node: Node) -> Piece:
        name, timeout = f"job{node.args['job']}", node.args["timeout"]

        async def go(around: Around) -> None:
            if (job := self.jobs.get(name)) is not None:
                try:
                    await job.wait_for({"n": around.n}, timeout=timeout)
                except WaitTimeout:
                    return

        return go

    def _revoke(self, node: Node) -> Piece:
        name = f"job{node.args['job']}"

        async def go(around: Around) -> None:
            if (job := self.jobs.get(name)) is not None:
                await job.cancel(n=node.args["n"])

        return go

    def _send(self, node: Node) -> Piece:
        async def go(around: Around) -> None:
            await self.news.send(n=node.args["n"])

        return go

    def _fail(self, node: Node) -> Piece:
        async def go(around: Around) -> None:
            if around.attempt <= node.args["times"]:
                raise Boom(f"fail{node.id}")

        return go

    def _child(self, node: Node) -> Piece:
        name, how = f"job{node.args['job']}", node.args["how"]

        async def go(around: Around) -> None:
            job = self.jobs.get(name)
            if job is None:
                return
            try:
                if how == "run":
                    around.last = await job.run(n=node.args["n"])
                    return
                handle = await job.start(n=node.args["n"])
                if how == "result":
                    around.last = await handle.result()
                elif how == "cancel":
                    await handle.cancel("not needed")
            except (RunError, TaskrunError):
                if not node.args["caught"]:
                    raise

        return go

    def _gather(self, node: Node, *inner: Piece) -> Piece:
        async def go(around: Around) -> None:
            try:
                await asyncio.gather(*(piece(around.branch()) for piece in inner))
            except (Boom, TaskrunError):
                if not node.args["caught"]:
                    raise

        return go

    def _group(self, node: Node, *inner: Piece) -> Piece:
        async def go(around: Around) -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    for piece in inner:
                        group.create_task(piece(around.branch()))
            except* (Boom, TaskrunError):
                if not node.args["caught"]:
                    raise

        return go

    def _timeout(self, node: Node, inner: Piece) -> Piece:
        async def go(around: Around) -> None:
            try:
                async with asyncio.timeout(node.args["lasts"]):
                    await inner(around.branch())
            except TimeoutError:
                return

        return go

    def _finally(self, node: Node, inner: Piece, last: Piece) -> Piece:
        async def go(around: Around) -> None:
            try:
                await inner(around)
            finally:
                await last(around)

        return go


def limit(id: str | None, count: int, period: float | None) -> Concurrency:
    """Returns a limit: of a window, or with a period a rolling one."""
    if period is None:
        return Concurrency(id, count)
    return Concurrency(id, f"{count} per {period:g}s")
