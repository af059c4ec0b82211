"""What is larger than a frame comes whole, and what is begun and not ended fills no memory."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskrun.daemon.frames import CLIENT_CAP, frame

from .conftest import TOML, Outcome, Project, most_memory

MB = 1_000_000
LARGER = CLIENT_CAP + 2 * MB
JOBS = """
import os, sys, threading, time
from taskrun import job, log, run

@job
async def large(size: int) -> str:
    return "x" * size

@job
async def large_steps(size: int, count: int) -> int:
    for number in range(count):
        await run(f"step-{number}", lambda: "y" * size)
    return count

@job
async def takes(text: str) -> int:
    return len(text)

@job
async def fails(size: int) -> None:
    raise ValueError("z" * size)

@job
async def long_line(size: int) -> int:
    print("l" * size)
    log.info("m" * size)
    return size

@job
async def hello(name: str = "you") -> str: return f"hello {name}"
"""


@pytest.fixture(scope="module")
def large(shared: Project) -> Iterator[Project]:
    shared.write("taskrun.toml", TOML + 'max_payload = "100MB"\n')
    shared.jobs(JOBS)
    yield shared
    shared.cli("daemon", "stop")


@pytest.mark.parametrize("args", [["run", "large", "--json"], ["run", "large"], ["run", "large", "-q"]])
def test_an_output_larger_than_a_frame_is_printed(large: Project, args: list[str]) -> None:
    outcome = large.cli(*args, "--size", str(LARGER), seconds=90)
    assert outcome.code == 0, outcome.err[-2000:]
    output = json.loads(outcome.out)["output"] if "--json" in args else outcome.out.removesuffix("\n")
    assert output == "x" * LARGER


def test_a_run_whose_steps_are_larger_than_a_frame_is_shown_by_every_command(large: Project) -> None:
    outcome = large.cli("start", "large_steps", "--size", str(LARGER // 4), "--count", "4", "-f", seconds=90)
    assert outcome.code == 0, outcome.err[-2000:]
    for args in (["show"], ["show", "-w"], ["wait"], ["tail"], ["why"]):
        outcome = large.cli(*args, "large_steps@last", seconds=60)
        assert outcome.code == 0, (args, outcome.err[-2000:])
    shown = json.loads(large.cli("show", "large_steps@last", "--json", seconds=60).out)
    assert [len(step["output"]) for step in shown["steps"]] == [LARGER // 4] * 4
    with large.client() as client:
        (run,) = client.stream("wait", runs=[shown["id"]])
        assert run["status"] == "succeeded"
        watching = client.stream("watch", run=[shown["id"]])
        assert len(next(watching)["run"]["steps"]) == 4


def test_an_input_larger_than_a_frame_is_taken(large: Project, tmp_path: Path) -> None:
    path = tmp_path / "input.json"
    path.write_text(json.dumps({"text": '"' * (LARGER // 3)}))  # as JSON within JSON each is four characters
    for outcome in (
        large.cli("run", "takes", "--input", f"@{path}", seconds=90),
        large.cli("wait", large.cli("start", "takes", "--input", f"@{path}", seconds=90).id, "--json", seconds=60),
        large.cli("run", "takes", "--input", "-", input=path.read_text(), seconds=90),
        waited(large, large.cli("start", "takes", "--input", "-", input=path.read_text(), seconds=90)),
    ):
        assert outcome.code == 0, outcome.err[-2000:]


def waited(project: Project, started: Outcome) -> Outcome:
    assert started.code == 0, started.err[-2000:]
    return project.cli("wait", started.id, seconds=60)


def test_of_lines_larger_than_a_frame_head_and_tail_are_followed_and_shown(large: Project) -> None:
    outcome = large.cli("run", "long_line", "--size", str(20 * MB), seconds=90)
    assert outcome.code == 0, outcome.err[-2000:]
    assert outcome.err.count("l" * 1000) > 3 * MB / 1000 and outcome.err.count("m" * 1000) > 3 * MB / 1000
    assert "left out here: too many came at once" in outcome.err
    outcome = large.cli("tail", "long_line@last", "--no-follow", "-n", "100000", seconds=90)
    assert outcome.code == 0, outcome.err[-2000:]
    shown = outcome.out + outcome.err
    assert shown.count("l" * 1000) > 3 * MB / 1000 and shown.count("m" * 1000) > 3 * MB / 1000
    assert large.cli("show", "long_line@last", seconds=60).code == 0


def test_clients_that_do_not_end_what_they_begin_fill_no_memory(project: Project) -> None:
    assert project.cli("run", "hello").code == 0
    pid = project.pid()
    before = most_memory(pid)
    with project.client() as client:
        path = client._connection.getpeername()
    hello = b'{"protocol":[1,1]}'
    with contextlib.ExitStack() as stack:
        for number in range(40):
            slow = stack.enter_context(socket.socket(socket.AF_UNIX))
            slow.settimeout(10)
            slow.connect(path)
            with contextlib.suppress(OSError):  # it was hung up on
                if number % 2:
                    slow.sendall(frame(hello, CLIENT_CAP))
                    slow.recv(1000)
                slow.sendall((16 * MB).to_bytes(4, "big") + b"x" * 15 * MB)
        begun = time.monotonic()
        assert project.cli("start", "hello", "--input", "-", input=json.dumps({"name": "A" * MB})).code == 0
        assert time.monotonic() - begun < 10
        assert most_memory(pid) - before < 160 * MB
