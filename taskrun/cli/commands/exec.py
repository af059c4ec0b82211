"""`taskrun exec`: any command, now, as a run of the job `exec`."""

from __future__ import annotations

from functools import partial
from typing import Any

import typer

from taskrun.cli.commands import saved_command
from taskrun.cli.commands.start import Start, awaited, refuse_two_times, report
from taskrun.cli.commands.typed_command import Exec, input_of
from taskrun.cli.common_options import AFTER, AFTER_ANY, COMMON, TAG, repeated, text_option
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.inputs import start_time
from taskrun.cli.session import Session
from taskrun.model.codec import encode
from taskrun.model.names import EXEC, check_title
from taskrun.model.tags import typed_tags

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("exec", context_settings={"allow_interspersed_args": False})
def exec_command(
    command: list[str] = typer.Argument(None, metavar="-- COMMAND [ARG …]", show_default=False),  # noqa: B008
    name: str = text_option("--name", "NAME", "Shown in place of exec."),
    group: str = text_option("--group", "GROUP", "Runs of one group take turns."),
    slots: int = typer.Option(
        None, "--slots", min=1, metavar="NUMBER", help="Of the group at once.  [default: 1, or as [groups] says]"
    ),
    retry: int = typer.Option(0, "--retry", min=0, metavar="NUMBER", help="Further attempts after the first."),
    timeout: str = text_option("--timeout", "DURATION", "From its start to its end, as in 2h."),
    delay: str = text_option("--in", "DURATION", "Start it this much later, as in 5m."),
    at: str = text_option("--at", "TIME", "Start it at a time: 18:30, or RFC 3339."),
    after: list[str] = repeated(*AFTER),  # noqa: B008
    after_any: list[str] = repeated(*AFTER_ANY),  # noqa: B008
    cwd: str = text_option("--cwd", "FOLDER", "Where it is executed.  [default: the current folder]"),
    env: list[str] = typer.Option(  # noqa: B008
        None,
        "--env",
        metavar="NAME[=VALUE]",
        help="A variable for it, never shown; NAME alone takes your value; repeatable.",
    ),
    tag: list[str] = repeated(*TAG),  # noqa: B008
    priority: int = typer.Option(0, "--priority", metavar="NUMBER", help="Higher starts first."),
    follow: bool = typer.Option(False, "-f", "--follow", help="Follow the run; Ctrl-C only stops following."),
    quiet: bool = COMMON.quiet,
    json: bool = COMMON.json,
    save: str = text_option(
        "--save", "NAME", "Append it to taskrun.toml as a job of this name, instead of running it."
    ),
    no_rerun: bool = typer.Option(
        False, "--no-rerun", help="Should it be cut off, as by a reboot, it fails instead of being begun again."
    ),
) -> Any:
    """Run any command durably: it goes on when the daemon dies, and list, show, tail, why, retry and cancel know it.

    One argument goes to the shell, several are executed as they are. Outside of any project it is a run of your own project.

    Example: taskrun exec --group encode --retry 2 -- ffmpeg -i in.mov out.mp4
    """
    if not command or not command[0]:
        raise Stop(Code.USAGE, "name a command, as in taskrun exec -- make test")
    if slots is not None and not group:
        raise Stop(Code.USAGE, "--slots says how many of a group go at once, so it needs --group")
    refuse_two_times(delay, at)
    start = Start(
        EXEC, (), "", delay, at, "", follow, json, quiet, tag or (), after=after or (), after_any=after_any or ()
    )
    typed = Exec(
        start, command, name, group, slots, retry, timeout, cwd, env or (), priority, rerun=not no_rerun, save=save
    )
    if save and (delay or at or after or after_any):
        raise Stop(Code.USAGE, "--save runs nothing, so --in, --at, --after and --after-any have no meaning with it")
    return partial(saved_command.save if save else perform, typed)


async def perform(options: Exec, session: Session) -> int:
    """Triggers, reports the run, and follows it when asked to."""
    own = session.fall_back_to_user()
    start = options.start
    given = input_of(options, session, session.project.groups)
    text = encode(given, "the command", session.project.max_payload)
    tags, name = typed_tags(start.tags), check_title(options.name) if options.name else None
    when = {"delay": start_time.delay(start.delay), "at": start_time.at(start.at)}
    with session.postponing(start.may_have_begun) as postponed:
        backend = await session.daemon()
        answer = await backend.call(
            "start",
            job=EXEC,
            input=text,
            name=name,
            tags=tags,
            after=await awaited(backend, start.after, start.after_any),
            intent=session.facts.intent,
            **when,
        )
    if postponed.heard:
        session.interrupted()
    if own and not (start.quiet or start.json):
        session.say("in your own project, since there is no taskrun.toml here: taskrun --user list")
    return await report(start, session, backend, answer)
