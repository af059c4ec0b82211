"""What commands have in common: their `Action`, `--config` and `--user`, and options that several of them take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import typer

from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.option_names import RUN
from taskrun.cli.session import Session

Action = Callable[[Session], Awaitable[int]]


def take_project(argv: Sequence[str]) -> tuple[list[str], str | None, bool]:
    """Takes `--config FILE` out of a command line, wherever it stands before a `--`, and `--user` before the command.

    Raises:
        Stop: both are there, or a file is missing.
    """
    kept: list[str] = []
    found, user = None, False
    rest = iter(argv)
    for token in rest:
        if token == "--":
            kept += [token, *rest]
        elif token == "--user" and all(one.startswith("-") for one in kept):
            user = True
        elif token == "--config":
            found = next(rest, None)
            if found is None:
                raise Stop(Code.USAGE, "--config needs a file")
        elif token.startswith("--config="):
            found = token.partition("=")[2]
        else:
            kept.append(token)
        if found == "":
            raise Stop(Code.USAGE, "--config needs a file")
    if user and found is not None:
        raise Stop(Code.USAGE, "--user and --config name two projects; give one of them")
    return kept, found, user


def text_option(name: str, metavar: str, help: str) -> Any:
    """Declares an option that takes text. Empty text is an error: it comes from a shell variable that is not set."""
    return typer.Option("", name, metavar=metavar, help=help, callback=_not_empty)


def repeated(name: str, metavar: str, help: str, yields: bool = False) -> Any:
    """Declares an option that may be repeated.

    Parameters:
        yields: it gives way to a field of an input of that name; `--run.NAME` is the option all the same.
    """
    names = [f"--{name}", *([f"--{RUN}{name}"] if yields else [])]
    return typer.Option(None, *names, metavar=metavar, help=help)


def _not_empty(ctx: typer.Context, param: typer.CallbackParam, value: str) -> str:
    source = ctx.get_parameter_source(param.name or "")
    if value == "" and source is not None and source.name == "COMMANDLINE":
        raise typer.BadParameter(f"it is empty; it takes {param.metavar}", ctx=ctx, param=param)
    return value


TAG = ("tag", "NAME=VALUE", "A tag of the run, which its children inherit; repeatable.")
AFTER = ("after", "RUN", "Start it once this run has succeeded; repeatable.")
AFTER_ANY = ("after-any", "RUN", "Start it once this run has ended, however; repeatable.")


class CommonOptions:
    """Declarations of options that several commands take."""

    json: Any = typer.Option(False, "--json", help="Print one JSON document and nothing else.")
    quiet: Any = typer.Option(False, "-q", "--quiet", help="Print the id alone.")
    input: Any = text_option("--input", "JSON|@FILE|-", "The input as JSON; options win over it.")
    tag: Any = repeated(*TAG, yields=True)
    after: Any = repeated(*AFTER, yields=True)
    after_any: Any = repeated(*AFTER_ANY, yields=True)
    help: Any = typer.Option(False, "--help", help="Show this, and with a name its options.", show_default=False)


COMMON = CommonOptions()
