"""`taskrun run`: starts a job in the foreground, shows it to its end, and prints its output."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

import typer

from taskrun.cli.backend.documents import completed
from taskrun.cli.commands.follow import View, view_for, watch_to_end
from taskrun.cli.commands.start import Start, help_of, trigger, typed
from taskrun.cli.commands.typed_each import EACH
from taskrun.cli.common_options import COMMON, text_option
from taskrun.cli.exit_codes import Code, Stop, code_of
from taskrun.cli.inputs.input_command import InputCommand
from taskrun.cli.lazy_imports import RUN_LOCAL, import_late
from taskrun.cli.sanitize import lines
from taskrun.cli.screens.phrases import ENDED, short
from taskrun.cli.screens.run import retry_command
from taskrun.cli.session import Backend, Session

app = typer.Typer(rich_markup_mode=None, add_completion=False)
KILLED_WITHIN = 3.0  # seconds that a run which is being killed is waited for


@app.command(cls=InputCommand, add_help_option=False)
def run(
    ctx: typer.Context,
    job: str = typer.Argument("", metavar="JOB"),
    more: list[str] = EACH.more,
    each: list[str] = EACH.each,
    max: str = EACH.max,
    fail_after: str = EACH.fail_after,
    input: str = COMMON.input,
    delay: str = text_option("--in", "DURATION", "Start it this much later, as in 5m."),
    at: str = text_option("--at", "TIME", "Start it at a time: 18:30, or RFC 3339."),
    key: str = text_option("--key", "KEY", "If there is a run with this key, follow that one."),
    after: list[str] = COMMON.after,
    after_any: list[str] = COMMON.after_any,
    tag: list[str] = COMMON.tag,
    local: bool = typer.Option(False, "--local", help="Execute in this process, without daemon and journal."),
    json: bool = COMMON.json,
    quiet: bool = typer.Option(False, "-q", "--quiet", help="Print the output alone."),
    help: bool = COMMON.help,
) -> Any:
    """Run a job in the foreground: follow its steps and log, then print its output.

    Ctrl-C cancels the run, a second one kills it.

    Example: taskrun run hello --name Ada
    """
    if not job or help:
        return help_of(ctx, job)
    options = typed(ctx, follow=True)
    if local and (delay or at or key or after or after_any):
        refused = "--in, --at, --key, --after and --after-any have no meaning with it"
        raise Stop(Code.USAGE, f"--local starts at once and records nothing, so {refused}")
    if local:
        performed: Any = import_late(RUN_LOCAL).perform  # loads the engine, which no other command needs
        return partial(performed, options)
    return partial(perform, options)


async def perform(options: Start, session: Session) -> int:
    """Triggers, follows, and prints the output."""
    with session.postponing(options.may_have_begun) as postponed:
        backend = await session.daemon()
        answer = await trigger(backend, session, options, "run")
    view = view_for(session, options.quiet)
    work = asyncio.ensure_future(watch_to_end(session, answer["run"], view))
    interrupts = InterruptHandler(session, answer["run"]["id"], view, work)
    session.on_interrupt = interrupts.interrupted
    if postponed.heard:
        interrupts.interrupted()
    try:
        ended = await work
    except asyncio.CancelledError:
        return Code.INTERRUPTED
    finally:
        view.close()
        await interrupts.settled()
    if "cut" in ended:
        ended = await completed(await session.reader(), ended)
    if not (shows_log(session, options, ended) and await _is_command(session, options.job)):
        print_output(session, ended, options.json)
    return code_of(ended)


def shows_log(session: Session, options: Start, ended: dict[str, Any]) -> bool:
    """Whether the terminal that would show a text as output has shown the log, in which what a command printed stands."""
    together = session.facts.out_tty and session.facts.err_tty
    return together and isinstance(ended["output"], str) and not options.quiet and not options.json


async def _is_command(session: Session, job: str) -> bool:
    backend = await session.reader()  # the daemon that the run was started in may be gone
    return any(one["name"] == job and one.get("commands") for one in (await backend.call("jobs"))["jobs"])


def print_output(session: Session, ended: dict[str, Any], as_json: bool) -> None:
    """Prints the output of a run: a string as it is, anything else as JSON; nothing if it did not succeed."""
    if as_json:
        session.json(ended)
    elif ended["status"] == "succeeded" and isinstance(ended["output"], str):
        text = ended["output"]
        session.data((lines(text) if session.facts.out_tty else text) + "\n")
    elif ended["status"] == "succeeded":
        session.json(ended["output"])
    elif ended["status"] in ENDED:
        session.say(f"  see why: taskrun show {short(ended['id'])}   try again: {retry_command(ended)}")


class InterruptHandler:
    """What Ctrl-C does to a run in the foreground: the first cancels it, the second kills it, the third ends the command."""

    def __init__(self, session: Session, run_id: str, view: View, work: asyncio.Future[dict[str, Any]]) -> None:
        self._session = session
        self._view = view
        self._run = run_id
        self._work = work
        self._asked: list[asyncio.Task[None]] = []

    def interrupted(self) -> None:
        """Takes one Ctrl-C."""
        if len(self._asked) == 0:
            self._view.note(f"cancelling {short(self._run)}; Ctrl-C again kills it")
            self._ask(self._cancel({"reason": "explicit"}))
        elif len(self._asked) == 1:
            self._view.note(f"killing {short(self._run)}")
            self._ask(self._kill())
        else:
            self._work.cancel()

    def _ask(self, request: Coroutine[Any, Any, None]) -> None:
        self._asked.append(asyncio.ensure_future(request))

    async def _cancel(self, how: dict[str, Any]) -> None:
        backend: Backend = await self._session.daemon()
        await backend.call("cancel", run=self._run, **how)

    async def _kill(self) -> None:
        """Cancels without grace, and waits for the end of the run, but not for long."""
        try:
            async with asyncio.timeout(KILLED_WITHIN):
                await self._cancel({"reason": "explicit", "grace": 0})
                await asyncio.wait([self._work])
        finally:
            self._work.cancel()

    async def settled(self) -> None:
        """Waits until the requests are answered."""
        await asyncio.gather(*self._asked, return_exceptions=True)
