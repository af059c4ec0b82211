"""Handlers that do their worst: each ends in a clear error, and nobody beside them notices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients import ended, start
from tests.waiting import until

from .conftest import TOML, Project, all_in

BAD = """
import asyncio, ctypes, os, sys, time
from typing import Any
from pathlib import Path
from taskrun import job, run, sleep, thread

class Odd(Exception):
    def __str__(self): raise RuntimeError("no text")
    __repr__ = __str__

class Two(Exception):
    def __init__(self, first, second):
        super().__init__()

class Base(BaseException): ...

def recurse(): return recurse()

def deep():
    value: list = []
    for _ in range(100_000):
        value = [value]
    return value

def cycle():
    value: list = []
    value.append(value)
    return value

def fail(error): raise error

KINDS = {
    "odd": lambda: fail(Odd()),
    "two": lambda: fail(Two(1, 2)),
    "base": lambda: fail(Base("b")),
    "exit": lambda: sys.exit(3),
    "interrupt": lambda: fail(KeyboardInterrupt()),
    "generator": lambda: fail(GeneratorExit()),
    "stop": lambda: fail(StopIteration(4)),
    "cancelled": lambda: fail(asyncio.CancelledError()),
    "memory": lambda: fail(MemoryError()),
    "recursion": recurse,
    "group": lambda: fail(ExceptionGroup("g", [ValueError(1), Odd()])),
    "surrogate": lambda: fail(ValueError("\\ud800")),
    "long": lambda: fail(ValueError("x" * 10_000_000)),
    "large": lambda: "x" * 10_000_000,
    "object": object,
    "nan": lambda: float("nan"),
    "infinity": lambda: [float("inf")],
    "half": lambda: "\\ud800",
    "deep": deep,
    "cycle": cycle,
    "digits": lambda: 10**5000,
    "keys": lambda: {(1, 2): 3},
    "lambda": lambda: (lambda: 1),
}

@job(retry=0)
async def handler(kind: str) -> Any:
    return KINDS[kind]()

@job(retry=0)
def plain(kind: str) -> Any:
    return KINDS[kind]()

@job(retry=0)
async def step(kind: str) -> Any:
    return await run("bad", lambda: KINDS[kind](), retry=0)

@job(retry=0)
async def async_step(kind: str) -> Any:
    async def body(): return KINDS[kind]()
    return await run("bad", body, retry=0)

@job(retry=0)
async def process(kind: str) -> Any:
    return await thread("bad", lambda: KINDS[kind](), retry=0)

@job(retry=0)
async def large_int() -> Any:
    first = await run("first", lambda: 2**70)
    second = await thread("second", lambda: -(2**70))
    return [first, second]

@job
async def noise() -> int:
    print("\\ud800 \\x1b[2J")
    sys.stdout.buffer.write(b"\\xff\\xfe\\n")
    sys.stdout.flush()
    return 1

@job
async def patient(seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return "done"

@job(retry=0)
async def deadly(how: str) -> None:
    await asyncio.sleep(0.05)
    if how == "exit":
        os._exit(9)
    ctypes.string_at(0)

@job
async def blocking(seconds: float) -> str:
    time.sleep(seconds)
    return "free"
"""
SAID = {
    "odd": ("Odd", ""),
    "two": ("Two", ""),
    "base": ("Base", "b"),
    "exit": ("SystemExit", "3"),
    "interrupt": ("KeyboardInterrupt", ""),
    "generator": ("GeneratorExit", ""),
    "stop": ("StopIteration", ""),
    "cancelled": ("CancelledError", ""),
    "memory": ("MemoryError", ""),
    "recursion": ("RecursionError", "maximum recursion"),
    "group": ("ExceptionGroup", "g (2 sub-exceptions)"),
    "surrogate": ("ValueError", ""),
    "long": ("ValueError", "xxxx"),
    "large": ("PayloadTooLarge", "the limit is 4 MB"),
    "object": ("NotEncodable", "object"),
    "nan": ("NotEncodable", "NaN"),
    "infinity": ("NotEncodable", "infinity"),
    "half": ("NotEncodable", "surrogate"),
    "deep": ("NotEncodable", "nested too deeply"),
    "cycle": ("NotEncodable", "holds itself"),
    "digits": ("NotEncodable", "digits"),
    "keys": ("NotEncodable", "key"),
    "lambda": ("NotEncodable", "function"),
}
IN_A_PROCESS = {"deep": ("PicklingError", "deep recursion")}


@pytest.fixture(scope="module")
def bad(shared: Project) -> Project:
    shared.jobs(BAD)
    return shared


@pytest.mark.parametrize("where", ["handler", "plain", "step", "async_step", "process"])
def test_whatever_a_handler_raises_or_returns_the_run_ends_and_says_why(bad: Project, where: str) -> None:
    with bad.client() as client:
        runs = {kind: start(client, where, kind=kind) for kind in SAID}
        late = set(runs.values())
        for run in client.stream("wait", runs=list(runs.values())):
            late.discard(run["id"])
            kind = run["input"]["kind"]
            error = run["error"] or {}
            said = f"{error.get('type')}: {error.get('message')}"
            wanted = (IN_A_PROCESS if where == "process" else {}).get(kind, SAID[kind])
            assert (run["status"], run["attempt"]) == ("failed", 1), (kind, run)
            assert all_in(said, wanted), (kind, said)
            assert len(error["message"]) + len(error["traceback"]) < 100_000
        assert not late


def test_ints_of_any_size_are_kept(bad: Project) -> None:
    outcome = bad.cli("run", "large_int")
    assert (outcome.code, json.loads(outcome.out)) == (0, [2**70, -(2**70)])
    outcome = bad.cli("run", "handler", "--kind", "odd")
    assert (outcome.code, outcome.out) == (1, "")
    assert "Odd" in outcome.err


def test_what_cannot_be_shown_is_printed_without_harm(bad: Project) -> None:
    outcome = bad.cli("run", "noise")
    assert (outcome.code, outcome.out) == (0, "1\n")
    assert "\x1b[2J" not in outcome.err


def test_a_failed_run_whose_message_steers_a_terminal_is_shown_plainly(bad: Project) -> None:
    for args in (["list", "--all"], ["show", "handler@last"], ["show", "handler@last", "--json"]):
        outcome = bad.cli(*args)
        assert outcome.code == 0
        assert "\x1b" not in outcome.out


def test_a_run_that_kills_its_worker_ends_and_its_neighbour_is_not_blamed(project: Project) -> None:
    project.jobs(BAD)
    with project.client() as client:
        neighbour = start(client, "patient", seconds=1.5)
        until(lambda: client.call("show", run=neighbour)["status"] == "running")
        guilty = start(client, "deadly", how="segfault")
        run = ended(client, guilty)
        assert (run["status"], run["reason"]) == ("failed", "crash loop")
        run = ended(client, neighbour)
        assert (run["status"], run["output"], run["attempt"]) == ("succeeded", "done", 1)
    outcome = project.cli("wait", guilty)
    assert outcome.code == 1
    assert "crash loop" in project.cli("show", guilty).out


def test_commands_are_answered_while_a_handler_blocks(bad: Project) -> None:
    blocked = bad.cli("start", "blocking", "--seconds", "2").id
    with bad.client() as client:
        until(lambda: client.call("show", run=blocked)["status"] == "running")
        for args in (["list"], ["show", blocked], ["jobs"], ["daemon", "status"], ["start", "noise"]):
            assert bad.cli(*args, seconds=10).code == 0
        assert bad.cli("start", "noise", "--bogus", "1").code == 2
        assert client.call("show", run=blocked)["status"] == "running"
        assert ended(client, blocked)["output"] == "free"


def test_a_blocking_handler_is_cancelled_by_force(project: Project) -> None:
    project.jobs(BAD)
    run = project.cli("start", "blocking", "--seconds", "600").id
    with project.client() as client:
        until(lambda: client.call("show", run=run)["status"] == "running")
    assert project.cli("daemon", "stop").code == 0
    until(lambda: not project.processes(), 10)


def test_a_limit_of_its_own_holds_for_results(project: Project, tmp_path: Path) -> None:
    project.write("taskrun.toml", TOML + 'max_payload = "1KB"\n')
    project.jobs(BAD)
    big = tmp_path / "big.json"
    big.write_text(json.dumps({"kind": "x" * 2000}))
    outcome = project.cli("run", "handler", "--input", f"@{big}")
    assert outcome.code == 2
    assert "the limit is 1 KB" in outcome.err
