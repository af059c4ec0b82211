"""What starts commands: pipes and jobs, of TOML and of Python; and commands called from Python."""

from __future__ import annotations

import logging

import pytest

from taskrun import NotBound, RunFailed, job, job_ref
from taskrun.model.names import RESERVED
from taskrun.testing import TestQueue
from tests.builtin_jobs.conftest import Project, queue_of

CONVERT = '[jobs.convert]\ncommand = "echo {path} {rate}"\ninput = { path = { type = "str" }, rate = 1 }\n'


async def test_the_declared_fields_of_an_event_are_taken(project: Project) -> None:
    toml = CONVERT + 'trigger = ["uploads"]\n[pipes.uploads]\ninput = { path = "str", user = "nobody" }'
    async with queue_of(project(toml)) as queue:
        await queue.pipes.uploads.send(path="a b", user="me")
        await queue.advance("1s")
        (run,) = [run async for run in queue.runs()]
        assert (run.input, await run.result()) == ({"path": "a b", "rate": 1}, "a b 1")


async def test_pipes_and_jobs_of_python_start_commands_too(project: Project) -> None:
    code = """
from dataclasses import dataclass
@dataclass
class Song:
    path: str
    rate: int
    title: str = ""
songs = pipe("songs", input=Song)
@job
async def pick(path: str) -> Song:
    return Song(path, 3)
"""
    async with queue_of(project(CONVERT + 'trigger = ["songs", "pick"]', code)) as queue:
        await queue.pipes.songs.send(path="x", rate=2)
        await queue.jobs.pick.run(path="y")
        await queue.advance("1s")
        outputs = sorted([await run.result() async for run in queue.runs(job="convert")])
    assert outputs == ["x 2", "y 3"]


async def test_commands_start_commands(project: Project) -> None:
    toml = (
        CONVERT
        + """trigger = ["find"]\n[jobs.find]\ncommand = '''echo '{{"path": "p", "more": 1}}' '''\noutput = "json"\n"""
    )
    async with queue_of(project(toml)) as queue:
        await queue.jobs.find.run()
        await queue.advance("1s")
        assert [await run.result() async for run in queue.runs(job="convert")] == ["p 1"]


async def test_what_is_no_object_starts_nothing_and_a_log_says_so(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    toml = CONVERT + 'trigger = ["words"]\n[jobs.words]\ncommand = "echo hello"\n'
    async with queue_of(project(toml)) as queue:
        with caplog.at_level(logging.WARNING):
            await queue.jobs.words.run()
            await queue.advance("1s")
        assert [run async for run in queue.runs(job="convert")] == []
    said = "job:words does not start convert: invalid input for convert: there is no object to take fields from"
    assert said in caplog.text


async def test_a_field_that_is_missing_starts_nothing_and_a_log_says_so(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    toml = CONVERT + 'trigger = ["uploads"]\n[pipes.uploads]\n'
    async with queue_of(project(toml)) as queue:
        await queue.pipes.uploads.send(rate=2)
        await queue.advance("1s")
        assert [run async for run in queue.runs()] == []
    assert "path: is required" in caplog.text


@pytest.mark.parametrize(
    ("toml", "said"),
    {
        '[jobs.a]\ncommand = "true"\ntrigger = ["uplods"]\n[pipes.uploads]': (
            '[jobs.a] trigger: there is no pipe or job "uplods"; did you mean uploads?'
        ),
        '[jobs.a]\ncommand = "true"\ntrigger = ["b"]\n[jobs.b]\ncommand = "true"\n[pipes.b]': (
            '[jobs.a] trigger: "b" is a pipe and a job; give one of them another name'
        ),
        '[jobs.a]\ncommand = "true"\ntrigger = ["a"]': "[jobs.a] trigger: the job would start itself again and again",
        '[jobs.own]\ncommand = "true"': '[jobs.own] two jobs are named "own": ',
        "[pipes.theirs]": '[pipes.theirs] two pipes are named "theirs": ',
    }.items(),
)
def test_what_only_the_whole_project_shows_is_named_with_its_line(project: Project, toml: str, said: str) -> None:
    found = project("\n" + toml, "@job\nasync def own(): ...\ntheirs = pipe('theirs')\n")
    (problem,) = found.problems
    assert (problem.file.endswith("taskrun.toml"), problem.line) == (True, 2)
    assert problem.text.startswith(said)
    assert "own" in found.registry.jobs


def test_a_job_with_a_wrong_trigger_can_be_started_all_the_same(project: Project) -> None:
    found = project('[jobs.a]\ncommand = "true"\ntrigger = ["nowhere", "p"]\n[pipes.p]')
    assert [source.topic for source in found.registry.jobs["a"].options.triggers] == ["pipe:p"]


def test_a_project_of_commands_alone_needs_no_folder_of_jobs(project: Project) -> None:
    found = project('[jobs.a]\ncommand = "true"')
    assert (found.problems, found.registry.jobs.keys() - RESERVED) == ([], {"a"})


# ---- from Python


async def test_a_command_is_called_from_python_by_its_name(project: Project) -> None:
    code = """
import asyncio
convert = job_ref("convert")
@job
async def outer() -> list:
    handle = await convert.start(path="b")
    waited = asyncio.ensure_future(convert.wait_for({"path": "b"}))
    return [await convert.run(path="a"), await handle.result(), await waited]
"""
    async with queue_of(project(CONVERT, code)) as queue:
        run = await queue.jobs.outer.start()
        await queue.advance("1s")
        assert await run.result() == ["a 1", "b 1", "b 1"]


async def test_a_reference_starts_a_job_with_the_validated_output(project: Project) -> None:
    code = """
from dataclasses import dataclass
@dataclass
class Song:
    path: str
@job(trigger=[job_ref("find").into(lambda song: {"path": song.path})])
async def play(path: str) -> str:
    return path
@job
async def find(path: str) -> Song:
    return Song(path)
"""
    async with queue_of(project("", code)) as queue:
        await queue.jobs.find.run(path="a")
        await queue.advance("1s")
        assert [await run.result() async for run in queue.runs(job="play")] == ["a"]


async def test_a_reference_to_nothing_says_so_when_it_is_called() -> None:
    @job(retry=0)
    async def outer() -> None:
        await job_ref("nowhere").run()

    async with TestQueue([outer]) as queue:
        with pytest.raises(RunFailed, match='no job "nowhere"') as caught:
            await queue.jobs.outer.run()
    assert caught.value.error_type == "taskrun.JobNotFound"


async def test_outside_of_a_queue_a_reference_is_bound_to_nothing() -> None:
    with pytest.raises(NotBound, match="works inside a handler"):
        await job_ref("convert").run()

    @job
    async def outer() -> None:
        await job_ref("convert").run()

    with pytest.raises(NotBound, match="needs a queue"):
        await outer()
