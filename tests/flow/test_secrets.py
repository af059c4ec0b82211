"""A field of an input that nobody is shown: its handler gets it, a retry too, and no view, event or excerpt has it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from taskrun import RunFailed, current, job
from taskrun.model.records import WHOLE
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

Secret = Annotated[dict[str, str], msgspec.Meta(extra_json_schema={"writeOnly": True})]
got: list[Any] = []


@job(retry=lambda value: 1 if value["env"].get("TOKEN") == "***" else 0)
async def uses(text: str, env: Secret = {}, word: str = "") -> None:  # noqa: B006
    got.append((env, current().input["env"]))
    raise ValueError("always")


@pytest.mark.parametrize("text", ["short", "x" * 2 * WHOLE])
async def test_only_the_handler_gets_it(storage: Store, text: str) -> None:
    got.clear()
    env = {"TOKEN": "s3cr3t"}
    async with TestQueue(jobs=[uses], storage=storage) as queue:
        run = await queue.jobs.uses.start(text=text, env=env)
        with pytest.raises(RunFailed):
            await run.result()
        again = await run.retry()
        with pytest.raises(RunFailed):
            await again.result()
        assert got == [(env, env), (env, env)]
        for each in (run, again):
            info = await each.info()
            assert info["input"]["env"] == {"TOKEN": "***"}
            assert "s3cr3t" not in repr((info, each.input, [event async for event in each.events()]))


async def test_one_that_is_empty_is_no_secret(storage: Store) -> None:
    async with TestQueue(jobs=[uses], storage=storage) as queue:
        run = await queue.jobs.uses.start(text="a")
        assert (await run.info())["input"] == {"text": "a", "env": {}, "word": ""}


@job
async def cancels(env: dict[str, str]) -> int:
    return await uses.cancel(text="a", env=env)


async def test_runs_are_told_apart_by_it(storage: Store) -> None:
    async with TestQueue(jobs=[uses, cancels], storage=storage) as queue:
        await queue.core.jobs.pause("uses")
        run = await queue.jobs.uses.start(text="a", env={"TOKEN": "s3cr3t"})
        assert await queue.jobs.cancels.run(env={"TOKEN": "another"}) == 0
        assert await queue.jobs.cancels.run(env={"TOKEN": "s3cr3t"}) == 1
        assert await run.status() == "cancelled"
