"""`taskrun start`: triggers a job and returns once that is durable."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import typer

from taskrun.cli.backend.documents import completed
from taskrun.cli.commands import typed_each, typed_input
from taskrun.cli.commands.follow import follow
from taskrun.cli.commands.typed_each import EACH, NONE, Each
from taskrun.cli.common_options import COMMON, Action, text_option
from taskrun.cli.exit_codes import Code, Stop, code_of
from taskrun.cli.inputs import input_command, start_time
from taskrun.cli.inputs.field_options import Given
from taskrun.cli.inputs.input_command import InputCommand
from taskrun.cli.screens.jobs import job_screen
from taskrun.cli.screens.phrases import short
from taskrun.cli.screens.run import next_commands, run_head
from taskrun.cli.session import Backend, Session
from taskrun.model.tags import typed_tags

app = typer.Typer(rich_markup_mode=None, add_completion=False)


class Start(msgspec.Struct, frozen=True):
    """What was typed."""

    job: str
    given: Sequence[Given]
    input: str = ""
    delay: str = ""
    at: str = ""
    key: str = ""
    follow: bool = False
    json: bool = False
    quiet: bool = False
    tags: Sequence[str] = ()
    each: Each = NONE
    after: Sequence[str] = ()
    after_any: Sequence[str] = ()

    @property
    def may_have_begun(self) -> bool:
        """Whether its run may be there before this process asks for it: what follows a run is first executed by the daemon.

        Not where standard input is read, which is done once.
        """
        return self.follow and self.input != "-" and "-" not in self.each.sources


@app.command(cls=InputCommand, add_help_option=False)
def start(
    ctx: typer.Context,
    job: str = typer.Argument("", metavar="JOB"),
    more: list[str] = EACH.more,
    each: list[str] = EACH.each,
    max: str = EACH.max,
    fail_after: str = EACH.fail_after,
    input: str = COMMON.input,
    delay: str = text_option("--in", "DURATION", "Start it this much later, as in 5m."),
    at: str = text_option("--at", "TIME", "Start it at a time: 18:30, or RFC 3339."),
    key: str = text_option("--key", "KEY", "If there is a run with this key, return that one."),
    follow: bool = typer.Option(False, "-f", "--follow", help="Follow the run; Ctrl-C only stops following."),
    after: list[str] = COMMON.after,
    after_any: list[str] = COMMON.after_any,
    tag: list[str] = COMMON.tag,
    json: bool = COMMON.json,
    quiet: bool = COMMON.quiet,
    help: bool = COMMON.help,
) -> Any:
    """Trigger a job and return once the trigger is durable.

    The job's input gives its options: taskrun start JOB --help lists them. With --each there is a run for each of many
    inputs, as in taskrun start transcode --each path='videos/*.mov' --max 4

    Example: taskrun start hello --name Ada
    """
    if not job or help:
        return help_of(ctx, job)
    return partial(perform, typed(ctx, follow))


def typed(ctx: typer.Context, follow: bool) -> Start:
    """Returns what was typed of the options that `start` and `run` have in common."""
    of, given = ctx.params, input_command.given(ctx)
    refuse_two_times(of["delay"], of["at"])
    return Start(
        job=of["job"],
        given=given,
        input=of["input"],
        delay=of["delay"],
        at=of["at"],
        key=of["key"],
        follow=follow,
        json=of["json"],
        quiet=of["quiet"],
        tags=of["tag"] or (),
        each=EACH.typed(of, given),
        after=of["after"] or (),
        after_any=of["after_any"] or (),
    )


def refuse_two_times(delay: str, at: str) -> None:
    """Refuses `--at` together with `--in`.

    Raises:
        Stop: both were typed.
    """
    if delay and at:
        raise Stop(Code.USAGE, "a run starts either --in a while or --at a time, not both")


def help_of(ctx: typer.Context, job: str) -> Action | None:
    """Shows the help of a command, or the options of the job that was named."""
    if job:
        return partial(show_help, "job", job, ctx)
    if not ctx.params.get("help"):
        raise typer.BadParameter("name a job; taskrun jobs lists them", ctx=ctx, param_hint="JOB")
    typer.echo(ctx.get_help())
    return None


async def show_help(kind: str, name: str, ctx: typer.Context, session: Session) -> int:
    """Lists the options of the input of a job or pipe, and those of the command itself."""
    target = await typed_input.find_target(session, await session.daemon(), name, kind)
    if ctx.params["json"]:
        session.json(target.described)
    else:
        own = input_command.own_listing(ctx.command, target.schema)
        session.show(job_screen(target.described, session.look(), _command_of(ctx), own))
    return Code.DONE


def _command_of(ctx: Any) -> str:
    """Returns the command as it is typed, without `taskrun`."""
    above = "" if ctx.parent is None or ctx.parent.parent is None else f"{_command_of(ctx.parent)} "
    return f"{above}{ctx.info_name}"


async def trigger(backend: Backend, session: Session, options: Start, command: str) -> dict[str, Any]:
    """Sends the request that records a run; returns `run` and `created`."""
    base = await typed_input.read_input(session, options.input)
    when = {"delay": start_time.delay(options.delay), "at": start_time.at(options.at)}
    target = await typed_input.find_target(session, backend, options.job)
    typed_input.warn_of_old_code(session, target)
    given, own = input_command.claimed(target.schema, options.given)
    tags = typed_tags([*options.tags, *own.get("tag", ())])
    after = [*options.after, *own.get("after", ())], [*options.after_any, *own.get("after-any", ())]
    named = {
        "key": options.key or None,
        "tags": tags,
        "after": await awaited(backend, *after),
        "source": "cli",
        "intent": session.facts.intent,
    }
    start = partial(backend.call, "start", job=options.job, **when, **named)
    each = options.each.with_claimed(own)
    answer: dict[str, Any]
    if each.sources:
        inputs, places = await typed_each.typed(session, target, each, given, base)
        with typed_each.named_by_place(target, places):
            answer = await start(each=inputs)
        return answer
    typed_each.refuse_alone(each)
    text = typed_input.as_text(session, options.job, await typed_input.built(session, target, given, base, command))
    with typed_input.named_as_typed(target, command):
        answer = await start(input=text)
    return answer


async def awaited(backend: Backend, after: Sequence[str], after_any: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the runs that a run is to start after, as a request has them.

    Raises:
        RunNotFound, AmbiguousRun: one of them is not there, or may be several.
    """
    wanted = [(ref, False) for ref in after] + [(ref, True) for ref in after_any]
    return [{"run": await backend.call("find", ref=ref), "any": ended} for ref, ended in wanted]


async def perform(options: Start, session: Session) -> int:
    """Triggers, reports the run, and follows it when asked to."""
    with session.postponing(options.may_have_begun) as postponed:
        backend = await session.daemon()
        answer = await trigger(backend, session, options, "start")
    if postponed.heard:
        session.interrupted()
    return await report(options, session, backend, answer)


async def report(options: Start, session: Session, backend: Backend, answer: dict[str, Any]) -> int:
    """Reports a run that was triggered, and follows it when asked to."""
    run = await completed(backend, answer["run"]) if options.json else answer["run"]
    if options.follow:
        return await _followed(options, session, run)
    tell(options, session, run, answer["created"])
    return code_of(run) if run["status"] == "discarded" else Code.DONE


def tell(options: Start, session: Session, run: dict[str, Any], created: bool) -> None:
    """Reports the run: the id alone for a script, a line and what to type next for a person."""
    if options.json:
        session.json(run)
    elif options.quiet or not session.facts.out_tty:
        session.data(run["id"] + "\n")
    else:
        look = session.look(err=True)
        session.say(run_head(run, session.now, look))
        session.say("  " + "   ".join(([] if created else ["existed already"]) + next_commands(run)))
    if run["status"] in ("discarded", "cancelled") and not options.quiet:
        session.say(f"{run['status']}: {run['reason']}; see it: taskrun show {short(run['id'])}")


async def _followed(options: Start, session: Session, run: dict[str, Any]) -> int:
    if options.quiet and not options.json:
        session.data(run["id"] + "\n")
    ended = await follow(session, run, quiet=options.quiet)
    if ended is None:
        return Code.INTERRUPTED
    if options.json:
        session.json(await completed(await session.reader(), ended))
    return code_of(ended)
