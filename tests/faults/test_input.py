"""Bad input: named in full, exit code 2, nothing recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskrun import Queue, job
from taskrun.model.errors import InputInvalid, NotEncodable, PayloadTooLarge

from .conftest import Project, all_in


@pytest.fixture(autouse=True, scope="module")
def nothing_is_recorded(shared: Project) -> Iterator[None]:
    yield
    assert shared.runs() == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["strict"], ["--name is required", "--count is required"]),
        (
            ["strict", "--count", "x", "--bogus", "1"],
            ['--count "x" is not an integer', "--bogus", "--name is required"],
        ),
        (["strict", "--nam", "a", "--count", "1"], ["did you mean", "--name"]),
        (["strict", "--input", '{"name": 1, "count": "x", "b": 2}'], ["--b: unknown", "--name: exp", "--count: exp"]),
        (["strict", "--input", "{"], ["--input is not valid JSON", "line 1"]),
        (["strict", "--input", "[1]"], ["--input is not a JSON object"]),
        (["strict", "--input", "@nowhere.json"], ["--input @nowhere.json: No such file"]),
        (["free", "--input", '{"value": 1, "value": 2}'], ["value", "twice"]),
        (["free", "--input", '{"value": NaN}'], ["NaN is not a JSON value"]),
        (["free", "--input", '{"value": -Infinity}'], ["-Infinity is not a JSON value"]),
        (["free", "--input", '{"value": 1e999}'], ["1e999 is too large"]),
        (["free", "--input", '{"value": "\\ud800"}'], ["an unpaired surrogate"]),
        (["free", "--input", '{"value": ' + "[" * 5000 + "]" * 5000 + "}"], ["nested deeper"]),
        (["free", "--input", '{"value": ' + "9" * 5000 + "}"], ["digits"]),
        (["hello", "--in", "5 parsecs"], ["parsecs", "the units are"]),
        (["hello", "--at", "noonish"], ["noonish"]),
    ],
    ids=lambda given: " ".join(map(str, given))[:40],
)
def test_bad_input_is_said_in_full(shared: Project, args: list[str], said: list[str]) -> None:
    outcome = shared.cli("start", *args)
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert all_in(outcome.err, said), outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["start", "helo"], ["did you mean", "hello"]),
        (["run", "helo"], ["did you mean", "hello"]),
        (["jobs", "helo"], ["did you mean", "hello"]),
        (["send", "nothing"], ['no pipe "nothing"']),
        (["show", "zzzzzz"], ['no run "zzzzzz"']),
        (["cancel", "zzzzzz"], ['no run "zzzzzz"']),
        (["tail", "zzzzzz"], ['no run "zzzzzz"']),
        (["wait", "zzzzzz"], ['no run "zzzzzz"']),
        (["retry", "zzzzzz"], ['no run "zzzzzz"']),
        (["show", "hello@last"], ["hello"]),
    ],
    ids=lambda given: " ".join(given)[:40],
)
def test_what_is_not_there_is_exit_code_3(shared: Project, args: list[str], said: list[str]) -> None:
    outcome = shared.cli(*args)
    assert (outcome.code, outcome.out) == (3, ""), outcome
    assert all_in(outcome.err, said), outcome.err


@pytest.mark.parametrize(
    "args",
    [
        ["strat"],
        ["start"],
        ["wait"],
        ["cancel"],
        ["list", "--status", "bogus"],
        ["list", "-n", "x"],
        ["list", "--bogus"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_exit_code_2(shared: Project, args: list[str]) -> None:
    outcome = shared.cli(*args)
    assert (outcome.code, outcome.out) == (2, ""), outcome
    assert outcome.err.startswith("error: ")


@pytest.mark.parametrize("megabytes", [10, 40])
def test_a_payload_over_the_limit_is_refused_by_the_command(shared: Project, tmp_path: Path, megabytes: int) -> None:
    path = tmp_path / "big.json"
    path.write_text(json.dumps({"value": "x" * megabytes * 1_000_000}))
    for outcome in (
        shared.cli("start", "free", "--input", f"@{path}"),
        shared.cli("start", "free", "--input", "-", input=path.read_text()),
    ):
        assert outcome.code == 2, outcome.err
        assert "limit" in outcome.err
        assert "the limit is 4 MB" in outcome.err or megabytes > 16
        assert "Traceback" not in outcome.err


def test_a_payload_over_the_limit_is_refused_by_the_daemon(shared: Project) -> None:
    with shared.client() as client:
        with pytest.raises(PayloadTooLarge, match="the limit is 4 MB"):
            client.call("start", job="free", input=json.dumps({"value": "x" * 10_000_000}))
        with pytest.raises(InputInvalid, match="not valid JSON"):
            client.call("start", job="free", input='{"value": ')
        with pytest.raises(InputInvalid, match="too large"):
            client.call("start", job="free", input='{"value": 1e999}')
        with pytest.raises(InputInvalid):
            client.call("start", job="free", input="[" * 100_000)


async def test_bad_input_is_refused_by_the_library() -> None:
    @job
    async def free(value: object) -> None: ...

    async with Queue(jobs=[free]) as queue:
        with pytest.raises(PayloadTooLarge, match="the limit is 4 MB"):
            await queue.jobs.free.start(value="x" * 10_000_000)
        for value in (float("nan"), [float("inf")], "\ud800", object(), {(1, 2): 3}):
            with pytest.raises((NotEncodable, InputInvalid)):
                await queue.jobs.free.start(value=value)
        with pytest.raises(InputInvalid, match="value"):
            await queue.jobs.free.start()
        assert [run async for run in queue.runs()] == []
