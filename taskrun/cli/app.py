"""The command line: argv becomes an `Action`, and an `Action` with a `Session` becomes an exit code.

Parsing is pure and needs no daemon. `__main__` executes a command line in this process; a warm daemon executes the same for a
thin client, with another `Terminal`. Commands are in `commands/`, one module each, and are imported when they are needed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from difflib import get_close_matches
from functools import cache
from io import StringIO
from typing import Any

import typer
from typer.main import get_command

from taskrun import __version__
from taskrun.cli.backend.connect import ProcessConnector
from taskrun.cli.command_group import CommandGroup
from taskrun.cli.command_table import COMMANDS, HIDDEN, find
from taskrun.cli.common_options import Action, take_project
from taskrun.cli.exit_codes import Code, Explained, Stop, explain
from taskrun.cli.sanitize import to_json
from taskrun.cli.session import Connector, Session
from taskrun.cli.terminal import LocalTerminal, Terminal
from taskrun.daemon.garbage import collect_rarely

USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # it has no public name


class Commands(CommandGroup):
    """The commands of the command table."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the names, in the order of the table."""
        return [name for name in COMMANDS if name not in HIDDEN]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns a command, importing it; None when there is none of that name."""
        return find(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command that was typed, or suggests a similar one."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            close = get_close_matches(args[0], self.list_commands(ctx), 2, 0.6)
            hint = f"did you mean  taskrun {'  taskrun '.join(close)}" if close else "list them: taskrun --help"
            raise Stop(Code.USAGE, f'no command "{args[0]}"', hint=hint)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, no_args_is_help=False
)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    config: str = typer.Option("", metavar="FILE", help="The taskrun.toml to use; may stand anywhere."),
    user: bool = typer.Option(False, "--user", help="Your own project, whatever the folder; before the command."),
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> Any:
    """Run durable jobs from the command line.

    Start with: taskrun init
    """
    if version:
        typer.echo(f"taskrun {__version__}")
        raise typer.Exit(Code.DONE)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(Code.DONE)


def parse(argv: Sequence[str], terminal: Terminal) -> Action | int:
    """Returns what a command line asks for, or an exit code when it only asked for help.

    Raises:
        Stop: it cannot be understood.
    """
    printed = StringIO()
    try:
        with redirect_stdout(printed):
            result = _all()(list(argv), prog_name="taskrun", standalone_mode=False, terminal_width=terminal.size()[0])
    except USAGE_ERROR as error:
        raise _usage(error, argv) from None
    if text := printed.getvalue():
        terminal.out(text)
    return result if callable(result) else int(result or 0)


@cache
def _all() -> Any:
    return get_command(app)


def _usage(error: Any, argv: Sequence[str]) -> Stop:
    ctx = getattr(error, "ctx", None)
    typed = next((word for word in argv if word in COMMANDS), "")
    path = ctx.command_path if ctx is not None else f"taskrun {typed}".rstrip()
    return Stop(Code.USAGE, _reworded(str(error.format_message())), hint=f"see its usage: {path} --help")


_WORDS = (  # what the parser says, and how taskrun says it; compiled when they are needed
    (r"Invalid value for [A-Z]+: (?=.)", ""),
    (r"Invalid value for ([^:]+): (?=.)", r"\1: "),
    (r"(\S+) is not in the range x>=(\d+)$", r"must be \2 or more, not \1"),
    (r"'([^']*)' is not a valid int(?:eger)?(?: range)?$", r'"\1" is not an integer'),
    (r"No such option: --user\b.*", "--user stands before the command, as in taskrun --user list"),
    (r"No such option: (\S+) \(Possible options: --help\)", r"there is no option \1"),
    (r"No such option: (\S+) \(Possible options: (.+)\)", r"there is no option \1; did you mean \2?"),
    (r"No such option: (\S+?)(?:\. Did you mean (\S+)\?)?$", r"there is no option \1"),
    (r"No such command '(.+)'", r'no command "\1"'),
    (r"Missing argument '([^']+?)\.*'", r"\1 is missing"),
    (r"Missing command$", "name one of its commands"),
    (r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", r"unexpected argument: \1"),
    (r"Option '(\S+)' requires an argument", r"\1 needs a value"),
    (r"Option '(\S+)' does not take a value", r"\1 takes no value"),
    (r"'(-{1,2}[\w-]+)'", r"\1"),
)


def _reworded(message: str) -> str:
    """Returns a message of the parser as taskrun says it."""
    text = message.removesuffix(".")
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def main(argv: Sequence[str], intent: str) -> int:
    """Executes a command line in this process and returns its exit code."""
    collect_rarely()
    try:
        return asyncio.run(execute(argv, LocalTerminal(intent), ProcessConnector()))
    except KeyboardInterrupt:  # before the command has begun
        return Code.INTERRUPTED


async def execute(argv: Sequence[str], terminal: Terminal, connector: Connector) -> int:
    """Executes a command line and returns its exit code; every error is explained on the terminal."""
    session = None
    try:
        rest, config, user = take_project(argv)
        session = Session(terminal, connector, config, user)
        action = parse(rest, terminal)
        return action if isinstance(action, int) else await _perform(action, session)
    except BrokenPipeError:
        return Code.PIPE
    except Exception as error:
        return report(terminal, explain(error).for_project(session.project_option if session else ""), argv)


async def _perform(action: Action, session: Session) -> int:
    """Runs an action as a task, which Ctrl-C cancels unless the action gives it another meaning."""
    task = asyncio.ensure_future(action(session))
    session.on_interrupt = task.cancel
    session.terminal.on_interrupt(session.interrupted)
    try:
        return int(await task)
    except asyncio.CancelledError:
        return Code.INTERRUPTED
    finally:
        await session.close()


def report(terminal: Terminal, explained: Explained, argv: Sequence[str]) -> int:
    """Reports what went wrong: to a program as JSON on standard output, to a person on standard error."""
    facts, as_json = terminal.facts, wants_json(argv)
    try:
        if as_json:
            terminal.out(to_json(explained.view(), 2 if facts.out_tty else None, not facts.utf8) + "\n")
    except BrokenPipeError:
        return Code.PIPE
    if not (as_json and facts.out_tty):
        terminal.err(explained.text())
    return int(explained.code)


def wants_json(argv: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, even if it cannot be parsed."""
    return "--json" in (argv[: argv.index("--")] if "--" in argv else argv)
