"""What programs print that a handler or a `run` step starts by itself is in the run's log, in a worker of the daemon."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskrun import job, run
from taskrun.engine.executor import child_output
from taskrun.engine.executor.capture import Capture
from taskrun.testing import TestQueue

BOTH = "echo out; echo err >&2"


@pytest.fixture(autouse=True)
def worker() -> Iterator[None]:
    """As in a process that is taskrun's."""
    Capture.install(echo=False)
    yield
    Capture.remove()
    assert subprocess.Popen.__init__ is not child_output.popen_in_run


def open_fds() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def lines_of(body: Callable[[], Any]) -> list[tuple[str, str, str | None]]:
    @job(retry=0)
    async def handler() -> Any:
        return await run("step", body)

    async with TestQueue(jobs=[handler]) as queue:
        handle = await queue.jobs.handler.start()
        await handle.result()
        return [(line.stream, line.text, line.step) async for line in handle.log()]


async def by_asyncio() -> None:
    await (await asyncio.create_subprocess_shell(BOTH)).wait()


@pytest.mark.parametrize(
    "start",
    [
        lambda: subprocess.run(BOTH, shell=True).returncode,
        lambda: subprocess.check_call(["sh", "-c", BOTH]),
        lambda: subprocess.Popen(BOTH, -1, None, None, None, None, shell=True).wait(),
        lambda: subprocess.run(BOTH, shell=True, stdout=sys.stdout, stderr=sys.stderr).returncode,
        lambda: os.system(BOTH),
        lambda: os.system(BOTH.encode()),
        by_asyncio,
    ],
)
async def test_what_a_child_prints_is_in_the_log_of_its_step(start: Callable[[], Any]) -> None:
    assert sorted(await lines_of(start)) == [("stderr", "err", "step"), ("stdout", "out", "step")]


async def test_what_the_code_wants_for_itself_it_gets() -> None:
    def take() -> None:
        assert subprocess.check_output(BOTH, shell=True) == b"out\n"
        assert subprocess.run(BOTH, shell=True, capture_output=True).stderr == b"err\n"
        with os.popen("echo out") as file:
            assert file.read() == "out\n"
        subprocess.run(BOTH, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert await lines_of(take) == [("stderr", "err", "step")]


async def test_both_streams_may_be_one_and_the_last_line_needs_no_end() -> None:
    def start() -> None:
        subprocess.run("echo out; echo err >&2; printf end", shell=True, stderr=subprocess.STDOUT)

    assert [text for _, text, _ in await lines_of(start)] == ["out", "err", "end"]


@pytest.mark.parametrize(("command", "code"), [("exit 3", 3 << 8), ("kill -9 $$", 9), ("true", 0)])
async def test_os_system_says_how_it_ended_as_ever(command: str, code: int) -> None:
    codes: list[int] = []
    await lines_of(lambda: codes.append(os.system(command)))
    assert codes == [code] == [os.system(command)]


async def test_runs_side_by_side_do_not_mix_what_their_children_print() -> None:
    @job
    async def handler(name: str) -> None:
        await asyncio.gather(*(run("step", subprocess.call, f"echo {name}; echo {name}", shell=True) for _ in range(2)))

    async with TestQueue(jobs=[handler]) as queue:
        handles = [await queue.jobs.handler.start(name=name) for name in ("a", "b")]
        for handle in handles:
            await handle.result()
            assert [line.text async for line in handle.log()] == [handle.input["name"]] * 4


async def test_a_flood_of_a_child_waits_and_is_whole() -> None:
    numbers = [int(text) for _, text, _ in await lines_of(lambda: subprocess.call(["seq", "-f", "%0100.0f", "20000"]))]
    assert numbers == list(range(1, 20_001))


async def test_a_child_that_outlives_its_run_prints_for_itself(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    children: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        script = f"echo early; while [ ! -e {go} ]; do sleep 0.01; done; echo late"
        children.append(subprocess.Popen(script, shell=True))
        time.sleep(0.1)

    assert await lines_of(start) == [("stdout", "early", "step")]
    go.touch()
    children[0].wait()
    while child_output._pipes:
        await asyncio.sleep(0.01)
    assert capfd.readouterr().out == "late\n"


async def test_nothing_is_left_open() -> None:
    def start() -> None:
        for _ in range(5):
            subprocess.call(BOTH, shell=True)
            with pytest.raises(FileNotFoundError):
                subprocess.call(["no-such-program-here"])

    await lines_of(start)
    before = open_fds()
    await lines_of(start)
    while child_output._pipes:
        await asyncio.sleep(0.01)
    assert open_fds() == before


def test_outside_of_runs_children_inherit_as_ever(capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.call(BOTH, shell=True)
    os.system(BOTH)
    assert capfd.readouterr() == ("out\nout\n", "err\nerr\n")
