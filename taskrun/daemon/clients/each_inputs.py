"""The many inputs of `start JOB --each`: checked before anything is recorded, then kept as the steps of one run of `each`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import msgspec

from taskrun.builtins.each import each, recorded
from taskrun.engine.core.core import Core
from taskrun.model.errors import InputInvalid
from taskrun.model.records import Step

AT_ONCE = 200  # inputs that a worker is asked to check at the same time
MOST_WRONG = 20  # wrong inputs that are named


class EachInput(msgspec.Struct, frozen=True):
    """The inputs of the children, how many run `max` at once, and after how many failures no further one starts."""

    inputs: list[msgspec.Raw]
    max: int = 10
    fail_after: int | None = None


async def check_inputs(core: Core, job: str, want: EachInput) -> None:
    """Checks all inputs as a trigger of each would be.

    Raises:
        InputInvalid: naming every bad field, that of the third input as `[2].field`.
        JobNotFound: no executor has the job.
    """
    problems: list[tuple[str, str]] = []
    for at in range(0, len(want.inputs), AT_ONCE):
        part = want.inputs[at : at + AT_ONCE]
        asked = (core.prepare(job, bytes(given).decode()) for given in part)
        for index, answer in enumerate(await asyncio.gather(*asked, return_exceptions=True), at):
            if isinstance(answer, InputInvalid):
                problems += _placed(index, answer)
            elif isinstance(answer, BaseException):
                raise answer
        if len(problems) >= MOST_WRONG:
            break
    if problems:
        raise InputInvalid(job, problems[:MOST_WRONG])


def with_inputs(job: str, want: EachInput, now: float) -> tuple[str, str, Sequence[Step]]:
    """Returns job and input (JSON text) of the run that has all of these inputs, and the steps that hold them."""
    given = {"job": job, "total": len(want.inputs), "max": want.max, "fail_after": want.fail_after}
    return each.name, msgspec.json.encode(given).decode(), recorded(want.inputs, now)


def _placed(index: int, error: InputInvalid) -> Iterator[tuple[str, str]]:
    return ((f"[{index}].{path}" if path else f"[{index}]", text) for path, text in error.problems)
