"""Pipes, and the triggers that pipes and jobs make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import pytest

from taskrun.declarations.job import job
from taskrun.declarations.pipe import pipe
from taskrun.model.errors import DefinitionError, InputInvalid, NotBound
from tests.declarations.fake import handler


class Upload(TypedDict):
    path: str


@dataclass
class Found:
    n: int


uploads = pipe("uploads", input=Upload)


async def awaited(upload: Upload) -> Upload:
    return upload


def test_a_pipe_knows_its_name_and_place() -> None:
    assert (uploads.name, uploads.topic, uploads.file) == ("uploads", "pipe:uploads", __file__)
    assert uploads.line > 0
    assert uploads.describe()["input_schema"]["properties"] == {"path": {"type": "string"}}


@pytest.mark.parametrize("name", ["", "a b", "2nd", "a/b", None, "é"])
def test_a_pipes_name_follows_the_rule(name: str) -> None:
    with pytest.raises(DefinitionError, match="cannot be the name of a pipe"):
        pipe(name)


def test_an_event_is_validated() -> None:
    assert uploads.prepare({"path": "a"}) == '{"path":"a"}'
    assert pipe("any").prepare([1, None]) == "[1,null]"
    with pytest.raises(InputInvalid, match="uploads"):
        uploads.prepare({"file": "a"})


async def test_in_a_handler_send_and_wait_go_to_the_caller() -> None:
    with handler() as fake:
        assert await uploads.send(path="a") == "send"
        await uploads.send({"path": "b"})
        await uploads.wait_for(timeout=5)
        await uploads.wait_for({"path": "a"})
    assert fake.asked == [
        ("send", "uploads", {"path": "a"}),
        ("send", "uploads", {"path": "b"}),
        ("wait", "pipe:uploads", None, 5),
        ("wait", "pipe:uploads", {"path": "a"}, None),
    ]


def test_outside_a_handler_send_says_what_to_use() -> None:
    with pytest.raises(NotBound, match=r"queue\.pipes\.uploads\.send"):
        _ = uploads.send(path="a")
    with pytest.raises(NotBound):
        _ = uploads.wait_for()


async def test_a_plain_call_of_a_handler_validates_what_it_sends() -> None:
    @job
    async def sends(path: object) -> str:
        return await uploads.send(path=path)

    assert await sends("a")
    with pytest.raises(InputInvalid):
        await sends(5)


def test_a_source_gives_the_input_it_makes() -> None:
    assert uploads.into().input_for('{"path":"a"}') == {"path": "a"}
    assert uploads.into(lambda upload: {"p": upload["path"]}).input_for('{"path":"a"}') == {"p": "a"}
    assert uploads.into(lambda upload: None).input_for('{"path":"a"}') is None


def test_a_source_function_gets_a_model_where_the_type_is_one() -> None:
    assert pipe("found", input=Found).into(lambda found: found.n).input_for('{"n":3}') == 3

    @job
    async def finds() -> Found:
        return Found(1)

    assert finds.into(lambda found: found.n + 1).input_for('{"n":3}') == 4
    assert finds.into().topic == "job:finds"


def test_into_takes_a_function() -> None:
    with pytest.raises(DefinitionError, match="into takes a function"):
        uploads.into({"path": "a"})  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="not an async one"):
        uploads.into(awaited)
