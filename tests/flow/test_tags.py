"""Tags: a run has those of its job, of its parent and of its trigger; a retry keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from taskrun import Run, current, job, thread
from taskrun.engine.core.admit import Trigger, new_id
from taskrun.model.errors import DefinitionError
from taskrun.model.tags import checked_tags, typed_tags, wanted_tags
from taskrun.stores.base import Store
from taskrun.testing import TestQueue

seen: dict[str, Any] = {}


@job(tags={"team": "child", "kind": "leaf"})
async def child() -> None:
    seen["child"] = dict(current().tags)
    seen["process"] = await thread("look", lambda: dict(current().tags))


@job(tags={"team": "parent", "env": "test"}, retry=0)
async def parent(fail: bool = False) -> None:
    seen["parent"] = dict(current().tags)
    await child.run()
    if fail:
        raise ValueError("once")


async def started(queue: TestQueue, job: str, tags: dict[str, str], data: str = "{}") -> Run:
    prepared = await queue.core.prepare(job, data)
    run = await queue.core.trigger(Trigger(prepared=prepared, id=new_id(), tags=tags))
    return queue.handle(run)


async def test_a_child_inherits_and_what_is_typed_wins(storage: Store) -> None:
    async with TestQueue(jobs=[parent, child], storage=storage) as queue:
        await (await started(queue, "parent", {"env": "prod", "note": "süß & 'q'"})).result()
    assert seen["parent"] == {"team": "parent", "env": "prod", "note": "süß & 'q'"}
    assert seen["child"] == {"team": "parent", "kind": "leaf", "env": "prod", "note": "süß & 'q'"} == seen["process"]


async def test_a_retry_keeps_them_and_they_are_in_the_json(storage: Store) -> None:
    async with TestQueue(jobs=[parent, child], storage=storage) as queue:
        run = await started(queue, "parent", {"env": "prod"}, '{"fail":true}')
        with pytest.raises(Exception, match="once"):
            await run.result()
        again = await run.retry()
        assert (await again.info())["tags"] == {"team": "parent", "env": "prod"}
        assert (await run.info())["children"][0]["tags"] == {"team": "parent", "kind": "leaf", "env": "prod"}


@pytest.mark.parametrize(
    "tags", [{"": "x"}, {"a b": "x"}, {"a": ""}, {"a": 1}, {"a": "x\n"}, {"a": "x" * 201}, ["a"], {1: "a"}]
)
def test_what_cannot_be_a_tag_is_refused_at_definition(tags: Any) -> None:
    with pytest.raises(DefinitionError, match="tag"):
        job(name="j", tags=tags)(lambda: None)
    with pytest.raises(DefinitionError):
        checked_tags(tags)


def test_what_is_typed() -> None:
    assert typed_tags(["a=1", "b=x=y", "a=2"]) == {"a": "2", "b": "x=y"}
    assert wanted_tags(["a", "b=x=y"]) == (("a", None), ("b", "x=y"))
    for wrong in ("a", "=x", "a=", "a/b=c", ""):
        with pytest.raises(DefinitionError, match="tag"):
            typed_tags([wrong])
