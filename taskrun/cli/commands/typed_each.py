"""`--each`: many inputs instead of one. Read, checked with all their problems, and sent as one request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import msgspec
import typer

from taskrun.cli.commands.typed_input import Target
from taskrun.cli.exit_codes import Code, Stop
from taskrun.cli.inputs.field_options import Given
from taskrun.cli.inputs.many_inputs import build_all, read_rows
from taskrun.cli.inputs.usage import usage
from taskrun.cli.option_names import RUN
from taskrun.cli.sanitize import cell
from taskrun.cli.session import Session
from taskrun.model.codec import check_size, encode
from taskrun.model.errors import InputInvalid
from taskrun.processes.threads import in_thread


class Each(NamedTuple):
    """What was typed of `--each`, `--max` and `--fail-after`; `more` are the arguments after the job."""

    sources: Sequence[str] = ()
    max: str = ""
    fail_after: str = ""
    more: Sequence[str] = ()

    def with_claimed(self, own: Mapping[str, Sequence[str]]) -> Each:
        """Returns it with what was typed under the plain names, which no field of the job has."""
        most, failures = (self.max, *own.get("max", ()))[-1], (self.fail_after, *own.get("fail-after", ()))[-1]
        return Each([*self.sources, *own.get("each", ())], most, failures, self.more)


class EachOptions(NamedTuple):
    """Declarations of the options, also under the names that no field takes from them."""

    each: Any = typer.Option(
        None,
        "--each",
        f"--{RUN}each",
        metavar="INPUTS",
        help="A run for each file, row or line: FIELD=PATTERN, @FILE.csv, @FILE.jsonl, or - (JSON lines).",
    )
    max: Any = typer.Option(
        "", "--max", f"--{RUN}max", metavar="NUMBER", help="With --each: runs at once.  [default: 10]"
    )
    fail_after: Any = typer.Option(
        "",
        "--fail-after",
        f"--{RUN}fail-after",
        metavar="NUMBER",
        help="With --each: failures after which no further run starts.",
    )
    more: Any = typer.Argument(None, metavar="[PATTERN…]", hidden=True)

    def typed(self, values: Mapping[str, Any], given: Sequence[Given]) -> Each:
        """Returns what was typed.

        Parameters:
            values: of the command's parameters.
            given: what may be fields of the input, or these options under their plain names.

        Raises:
            Stop: there are arguments that belong to nothing.
        """
        each = Each(values["each"] or (), values["max"], values["fail_after"], values["more"] or ())
        if each.more and not each.sources and not any(one.name == "each" for one in given):
            raise Stop(Code.USAGE, f"unexpected argument {cell(each.more[0])}")
        return each


EACH = EachOptions()
NONE = Each()


async def typed(
    session: Session, target: Target, each: Each, given: Sequence[Given], base: Any
) -> tuple[Any, list[str]]:
    """Returns the part of the request that has the inputs, and where each of them stands.

    Raises:
        Stop: an input is invalid, or there is none; names line and field.
        PayloadTooLarge: together they are over the limit.
    """
    limits = {"max": _number("max", each.max) or 10, "fail_after": _number("fail-after", each.fail_after)}
    stdin = await session.terminal.read() if "-" in each.sources else b""
    read = partial(read_rows, each.sources, each.more, target.schema, session.facts.cwd, stdin)
    rows = await in_thread(read)
    made, problems = await in_thread(partial(build_all, target.schema, rows, given, base, session.facts.cwd))
    if problems:
        raise _invalid(target, problems)
    inputs = [msgspec.Raw(encode(value, f"{place}: the input of {target.name}").encode()) for place, value in made]
    check_size(b"".join(map(bytes, inputs)), "the input of --each", session.project.max_payload)
    return {"inputs": inputs, **limits}, [place for place, _ in made]


def refuse_alone(each: Each) -> None:
    """Refuses what means something with `--each` only.

    Raises:
        Stop: such a thing was typed without it.
    """
    if each.more:
        raise Stop(Code.USAGE, f"unexpected argument {cell(each.more[0])}")
    for name, text in (("max", each.max), ("fail-after", each.fail_after)):
        if text:
            raise Stop(Code.USAGE, f"--{name} goes with --each")


@contextmanager
def named_by_place(target: Target, places: Sequence[str]) -> Iterator[None]:
    """Reports what the job finds wrong with its inputs by where they stand."""
    try:
        yield
    except InputInvalid as error:
        raise _invalid(target, [_placed(target, places, path, text) for path, text in error.problems]) from None


def _placed(target: Target, places: Sequence[str], path: str, text: str) -> str:
    index, _, field = path.removeprefix("[").partition("]")
    if not index.isdigit() or int(index) >= len(places):
        return f"{path}: {text}"
    name = target.schema.name_of(tuple(field.removeprefix(".").split("."))) if field else ""
    return f"{places[int(index)]}: " + (f"--{name}: {text}" if name else text)


def _invalid(target: Target, problems: Sequence[str]) -> Stop:
    hint = f"fields of {target.name}: {usage(target.schema)}"
    return Stop(Code.USAGE, *problems, hint=hint, kind="InputInvalid")


def _number(name: str, text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 10**9:
        raise Stop(Code.USAGE, f'--{name} "{cell(text)}" is not a number of 1 or more')
    return int(text)
