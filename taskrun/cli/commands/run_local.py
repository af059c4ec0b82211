"""`taskrun run --local`: executes a job in this process, for debuggers.

The journal is in memory: nothing is recorded, the project's journal is not touched, and a daemon may run at the same time. The
folder and the environment are those of a worker, so that the job finds the same files as there. What it prints goes to standard
error, so that standard output contains the output alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import chdir, redirect_stdout
from typing import Any

from taskrun.builtins.builtin_jobs import JOBS
from taskrun.builtins.project import load_project
from taskrun.cli.backend.described_jobs import did_you_mean
from taskrun.cli.backend.job_files import check_inputs
from taskrun.cli.backend.time_order import TimeOrder
from taskrun.cli.commands import typed_each, typed_input
from taskrun.cli.commands.follow import PlainView, View
from taskrun.cli.commands.run import print_output, shows_log
from taskrun.cli.commands.start import Start
from taskrun.cli.commands.typed_input import Target
from taskrun.cli.exit_codes import Code, Stop, code_of
from taskrun.cli.inputs import input_command
from taskrun.cli.inputs.input_schema import InputSchema
from taskrun.cli.sanitize import lines
from taskrun.cli.session import Session
from taskrun.declarations.registry import Registry
from taskrun.engine.api.queue import Queue
from taskrun.engine.api.run import Run
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.engine.core.outbox import RunChanged, StepChanged
from taskrun.engine.core.queries import views
from taskrun.engine.core.subscriptions import Change, LogAdded
from taskrun.model.codec import encode
from taskrun.model.records import Status
from taskrun.model.tags import typed_tags

ECHOED = frozenset({"stdout", "stderr"})  # the engine itself shows what is printed


async def perform(options: Start, session: Session) -> int:
    """Loads the jobs, runs one, and prints its output."""
    os.environ.update(session.config.env)
    with chdir(session.config.cwd), redirect_stdout(sys.stderr):
        config = session.config
        registry = load_project(config.jobs, config.root, config.declared, builtin=JOBS).registry
        check_inputs(session.config, registry)
        base = await typed_input.read_input(session, options.input)
        target = _target(registry, options.job)
        given, own = input_command.claimed(target.schema, options.given)
        tags = typed_tags([*options.tags, *own.get("tag", ())])
        each = options.each.with_claimed(own)
        if each.sources:
            raise Stop(Code.USAGE, "--local executes one run, so --each has no meaning with it")
        typed_each.refuse_alone(each)
        value = await typed_input.built(session, target, given, base, "run")
        async with Queue(list(registry.jobs.values()), registry.pipes, grace=session.config.grace) as queue:
            with typed_input.named_as_typed(target, "run"):
                ended = await _to_end(queue, value, tags, options, session)
    if not (target.described.get("commands") and shows_log(session, options, ended)):
        _print(session, ended, options.json)
    return code_of(ended)


def _print(session: Session, ended: dict[str, Any], as_json: bool) -> None:
    """Prints the output, or the whole traceback, since no journal keeps it."""
    if ended["error"] and not as_json:
        session.terminal.err(lines(ended["error"]["traceback"]))
    elif as_json or ended["status"] == "succeeded":
        print_output(session, ended, as_json)


def _target(registry: Registry, name: str) -> Target:
    job = registry.jobs.get(name)
    if job is None:
        hint = did_you_mean(name, registry.jobs)
        raise Stop(Code.NOT_FOUND, f'no job "{name}"', hint=hint, kind="JobNotFound")
    described = job.describe()
    return Target(name, InputSchema(described["input_schema"]), described)


async def _to_end(queue: Queue, value: Any, tags: dict[str, str], options: Start, session: Session) -> dict[str, Any]:
    """Shows a run until it has ended. The first Ctrl-C cancels it, a second one stops waiting for it."""
    view: View = View(session) if options.quiet else PlainView(session)
    async with queue.core.bus.subscribe() as changes:
        prepared = await queue.core.prepare(options.job, encode(value, "input"))
        started = await queue.core.trigger(Trigger(prepared=prepared, id=new_id(), source="cli", tags=tags))
        run = queue.handle(started)
        view.begin(dict(await run.info()))
        work = asyncio.ensure_future(_watch(changes, run.id, view))
        session.on_interrupt = _InterruptHandler(run, work).interrupted
        await work
    info: dict[str, Any] = dict(await run.info())
    view.end(info)
    return info


class _InterruptHandler:
    """What Ctrl-C does."""

    def __init__(self, run: Run, work: asyncio.Future[None]) -> None:
        self._run = run
        self._work = work
        self._asked: asyncio.Task[bool] | None = None

    def interrupted(self) -> None:
        """Takes one Ctrl-C."""
        if self._asked is None:
            self._asked = asyncio.ensure_future(self._run.cancel())
        else:
            self._work.cancel()


async def _watch(changes: AsyncIterator[Change], run_id: str, view: View) -> None:
    """Shows what happens to a run, until it has ended."""
    order = TimeOrder(view.log, view.step)
    async for change in changes:
        if isinstance(change, StepChanged) and change.step.run == run_id:
            order.add_steps({"kind": "step", "step": views.step_view(change.step)})
            order.flush()
        elif isinstance(change, RunChanged) and change.run.id == run_id and change.run.ended:
            return
        elif isinstance(change, RunChanged) and change.run.id == run_id and change.run.status is Status.PAUSED:
            order.flush()
            view.note("paused: its retries are used up, and with --local nothing lets it go on; Ctrl-C ends it")
        elif isinstance(change, LogAdded):
            _log(change, run_id, view)


def _log(change: LogAdded, run_id: str, view: View) -> None:
    for line in change.lines:
        if line.run == run_id and line.stream not in ECHOED:
            view.log(views.log_view(line))
