"""`taskrun cancel`: cancels runs, which are named or selected by a filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import typer

from taskrun.cli.backend.documents import completed
from taskrun.cli.backend.paging import all_runs
from taskrun.cli.commands import typed_input
from taskrun.cli.commands.list import statuses
from taskrun.cli.common_options import COMMON, text_option
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.inputs import input_command
from taskrun.cli.inputs.field_options import Given
from taskrun.cli.inputs.input_command import InputCommand
from taskrun.cli.option_names import OwnOptions
from taskrun.cli.screens.phrases import ENDED, given, named, short
from taskrun.cli.session import Backend, Session
from taskrun.model.records import UNFINISHED

NAMED = 10  # runs that a message names
ENDINGS = {
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "been cancelled",
    "discarded": "been discarded",
}

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Cancel(msgspec.Struct, frozen=True):
    """What was typed."""

    refs: tuple[str, ...]
    job: str
    statuses: tuple[str, ...]
    given: Sequence[Given]
    own: OwnOptions
    reason: str
    yes: bool
    json: bool

    @property
    def filters(self) -> bool:
        """Whether runs are selected instead of named."""
        return bool(self.job or self.statuses)


@app.command(cls=InputCommand)
def cancel(
    ctx: typer.Context,
    runs: list[str] = typer.Argument(None, metavar="[RUN]...", help="An id, a part of one, @last or JOB@last."),  # noqa: B008
    job: str = text_option("--job", "JOB", "Unfinished runs of this job; fields narrow them down."),
    status: list[str] = typer.Option(None, "--status", metavar="STATUS", help="Runs in this state."),  # noqa: B008
    reason: str = typer.Option("explicit", "--reason", metavar="TEXT", help="Kept as the run's reason."),
    yes: bool = typer.Option(False, "-y", "--yes", help="Do not ask."),
    json: bool = COMMON.json,
) -> Any:
    """Cancel runs: those that are named, or those that a filter selects.

    Asks first when a filter selects more than one run.

    Example: taskrun cancel --job hello --name Ada
    """
    own = input_command.own_options(ctx.command)
    options = Cancel(tuple(runs or ()), job, statuses(status or []), input_command.given(ctx), own, reason, yes, json)
    problem = _misuse(options)
    if problem:
        raise Stop(Code.USAGE, problem, hint="see its usage: taskrun cancel --help")
    return partial(perform, options)


def _misuse(options: Cancel) -> str:
    if options.given and not options.job:
        return f"there is no option --{options.given[0].name}; fields of an input go with --job"
    if not options.refs and not options.filters:
        return "name a run, or select runs with --job or --status"
    if options.refs and options.filters:
        return "name runs or select them with --job and --status, not both"
    return ""


async def perform(options: Cancel, session: Session) -> int:
    """Cancels the runs and reports which."""
    backend = await session.daemon()
    if options.filters:
        runs = await _selected(session, backend, options)
        await _confirm(session, options, runs)
        named = [run["id"] for run in runs]
    else:
        named = list(dict.fromkeys([await backend.call("find", ref=ref) for ref in options.refs]))
    changed = [await _cancelled(backend, run, options.reason) for run in named]
    if options.json:
        session.json([await completed(backend, run) for run, new in changed if new])
    else:
        _tell(session, changed)
    return Code.DONE


async def _cancelled(backend: Backend, run: str, reason: str) -> tuple[dict[str, Any], bool]:
    """Cancels one run; returns it, and whether that changed anything."""
    changed = await backend.call("cancel", run=run, reason=reason)
    return (changed[0], True) if changed else (await backend.call("show", run=run), False)


async def _selected(session: Session, backend: Backend, options: Cancel) -> list[dict[str, Any]]:
    """Returns the unfinished runs that match; of their inputs, only the fields that were typed are compared."""
    wanted = [one for one in options.statuses or sorted(UNFINISHED) if one in UNFINISHED]
    if not wanted:  # only states in which runs have ended
        return []
    runs = await all_runs(backend, job=options.job or None, status=wanted)
    if not options.job or (runs and not options.given):  # a job that is gone from the code may still have runs
        return runs
    fields = await _fields(session, backend, options)
    return [run for run in runs if contains((await completed(backend, run))["input"], fields)]


async def _fields(session: Session, backend: Backend, options: Cancel) -> dict[str, Any]:
    """Returns the fields that were typed, converted by the job's schema."""
    target = await typed_input.find_target(session, backend, options.job, own=options.own)
    made = await typed_input.make(session, target, options.given, complete=False)
    if made.problems:
        hint = f"see its options: taskrun jobs {options.job}"
        raise Stop(Code.USAGE, *made.problems, hint=hint, kind="InputInvalid")
    fields: dict[str, Any] = made.value
    return fields


def contains(value: Any, part: Any) -> bool:
    """Whether a mapping has at least the fields of another, at any depth."""
    if isinstance(part, dict):
        return isinstance(value, dict) and all(key in value and contains(value[key], part[key]) for key in part)
    return bool(value == part)


async def _confirm(session: Session, options: Cancel, runs: list[dict[str, Any]]) -> None:
    """Asks before more than one run is cancelled; without a terminal `-y` is needed."""
    if len(runs) < 2 or options.yes:
        return
    session.say(f"the filter matches {len(runs)} runs:")
    for run in runs[:NAMED]:
        session.say(f"  {short(run['id'])} {named(run)} {run['status']}  {given(run)}")
    if len(runs) > NAMED:
        session.say(f"  … and {len(runs) - NAMED} more")
    if not session.facts.in_tty:
        raise Stop(Code.USAGE, f"that would cancel {len(runs)} runs; nothing was cancelled", hint="to confirm, add -y")
    answer = await session.terminal.ask(f"cancel {len(runs)} runs? [y/N] ")
    if answer.lower() not in ("y", "yes"):
        raise Stop(Code.USAGE, "nothing was cancelled")


def _tell(session: Session, changed: list[tuple[dict[str, Any], bool]]) -> None:
    """Reports what became of each run, of many only the first by name, and how many there are of each."""
    for run, new in changed[:NAMED]:
        session.say(f"{short(run['id'])} {named(run)}: {_outcome(run, new)}")
    if not session.facts.out_tty:
        session.data("".join(run["id"] + "\n" for run, new in changed if new))
    if len(changed) > NAMED:
        session.say(f"… and {len(changed) - NAMED} more")
    if len(changed) > 1:
        totals = Counter(_outcome(run, new) for run, new in changed)
        session.say("in all: " + ", ".join(f"{count} {outcome}" for outcome, count in totals.items()))
    if not changed:
        session.say("no run matches; nothing was cancelled: taskrun list")
    elif any(new for _, new in changed):
        session.say(f"  see: taskrun show {short(changed[0][0]['id'])}")


def _outcome(run: dict[str, Any], new: bool) -> str:
    if new:
        return "cancelled" if run["status"] in ENDED else "cancelling"
    return f"had already {ENDINGS[run['status']]}"
