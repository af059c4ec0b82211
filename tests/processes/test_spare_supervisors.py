"""A supervisor takes one command after the other, and nothing of one reaches the next."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from taskrun.processes import command_link, launcher
from taskrun.processes.command import CommandResult
from taskrun.processes.kept_file import KeptFile
from taskrun.processes.leftovers import signal_supervisor
from taskrun.processes.process_table import process
from taskrun.processes.surviving_command import CommandKey, SurvivingCommands, end_command
from tests.waiting import until_async

from .conftest import Census
from .surviving import KEY, Reader, order

pytestmark = pytest.mark.usefixtures("no_leak")

OTHER = CommandKey("other", 1, "step", 1)
ROOT = Path(__file__).parents[2]


class Commands(SurvivingCommands):
    """The commands of one worker."""

    async def said(self, script: str, key: CommandKey = KEY) -> str:
        """Runs a command; returns what it has printed."""
        result = await self.run(key, order(script), 0, Reader())
        self.forget(key)
        return result.stdout.strip()

    async def supervisor(self) -> int:
        """The supervisor that takes the next command."""
        return int(await self.said("echo $PPID"))


@pytest.fixture
async def commands(tmp_path: Path) -> AsyncIterator[Commands]:
    commands = Commands(tmp_path / "commands")
    yield commands
    await commands.close()


@asynccontextmanager
async def running(commands: Commands, script: str, reader: Reader) -> AsyncIterator[asyncio.Future[CommandResult]]:
    """Another command, which has printed its first line."""
    following = asyncio.ensure_future(commands.run(OTHER, order(script), 0, reader))
    await until_async(lambda: reader.lines)
    yield following
    commands.forget(OTHER)


def gated(folder: Path) -> str:
    """A command that says who it is and waits for its gate."""
    return f"echo $PPID; while [ ! -e {folder}/gate ]; do sleep 0.02; done; exit 5"


SURROUNDINGS = """
import os, resource
status = open("/proc/self/status").read().splitlines()
print(os.getcwd(), sorted(os.environ.items()), os.umask(0), os.getsid(0) == os.getpgrp() == os.getpid())
print([line for line in status if line.startswith(("Sig", "Shd", "NoNewPrivs", "Seccomp:"))])
print([resource.getrlimit(number) for number in range(16)], os.nice(0), sorted(os.listdir("/proc/self/fd")))
print(open("/proc/self/oom_score_adj").read(), len(os.listdir(f"/proc/{os.getppid()}/fd")))
print(open(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read().split() == [str(os.getpid())])
"""
UNTIDY = """
cd {folder}; umask 0; ulimit -n 100; trap '' TERM HUP PIPE CHLD; export LEFT=left
exec 7>{folder}/open; sleep 300 & setsid sleep 300 & (setsid sleep 300 &)
echo done
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_nothing_of_a_command_reaches_the_next(commands: Commands, tmp_path: Path, census: Census) -> None:
    look = f"exec {sys.executable} -S -c '{SURROUNDINGS}'"
    fresh = await commands.said(look)
    first = await commands.supervisor()
    assert await commands.said(UNTIDY.format(folder=tmp_path)) == "done"
    assert not [line for line in census.commands().values() if "sleep" in line]
    assert await commands.said(look) == fresh
    assert str(Path(f"/proc/{first}/cwd").readlink()) == "/"
    assert await commands.supervisor() == first


async def test_signals_that_were_meant_for_the_command_before_do_not_end_the_next(
    commands: Commands, tmp_path: Path
) -> None:
    await commands.run(KEY, order("true"), 0, Reader())
    with KeptFile(commands.folder / KEY.name) as file:
        before = file.identity()
    reader = Reader()
    async with running(commands, gated(tmp_path), reader) as following:
        assert reader.lines == [str(before.processes.supervisor)]
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal_supervisor(before, number)
        (tmp_path / "gate").touch()
        assert (await following).code == 5
    commands.forget(KEY)


async def test_a_command_that_is_cut_off_late_and_run_again_does_not_take_the_supervisor_of_the_next(
    commands: Commands, tmp_path: Path
) -> None:
    await commands.run(KEY, order("true"), 0, Reader())
    with KeptFile(commands.folder / KEY.name) as file:
        file.mark(cut_off=True)
    reader = Reader()
    async with running(commands, gated(tmp_path), reader) as following:
        await commands.supervisor()
        (tmp_path / "gate").touch()
        assert (await following).code == 5
    assert len(reader.lines) == 1


async def test_who_was_ordered_to_end_its_command_gets_no_other(commands: Commands, tmp_path: Path) -> None:
    reader = Reader()
    async with running(commands, gated(tmp_path), reader) as following:
        await end_command(commands.folder / OTHER.name, 5.0, cut_off=True)
        assert (await following).code == -signal.SIGTERM
    assert reader.lines != [str(await commands.supervisor())]


async def test_one_that_was_killed_is_replaced(commands: Commands, tmp_path: Path) -> None:
    first = await commands.supervisor()
    os.kill(first, signal.SIGKILL)
    assert await commands.said(f"echo $PPID | tee -a {tmp_path}/oracle") != str(first)
    assert len((tmp_path / "oracle").read_text().splitlines()) == 1
    second = await commands.supervisor()
    os.kill(second, signal.SIGKILL)
    await until_async(lambda: process(second) is None)
    assert await commands.supervisor() != second


async def test_one_that_was_stopped_holds_nothing_up(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_link, "NUDGE", 0.01)
    first = await commands.supervisor()
    os.kill(first, signal.SIGSTOP)
    assert await commands.supervisor() == first


async def test_those_that_are_spare_end_when_there_is_nothing_for_them(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "SPARE", 0.0)
    first = await commands.supervisor()
    await until_async(lambda: process(first) is None)
    assert await commands.supervisor() != first


WORKER = """
import asyncio, sys
from pathlib import Path
from taskrun.processes import launcher
from tests.processes.test_spare_supervisors import Commands

async def main():
    print(await Commands(Path(sys.argv[1])).supervisor(), flush=True)
    await asyncio.sleep(600)

launcher.SPARE = 600.0
asyncio.run(main())
"""


async def test_those_that_are_spare_end_with_their_worker(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path / "commands")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        supervisor = int(worker.stdout.readline())
        assert process(supervisor) is not None
        worker.kill()
    await until_async(lambda: process(supervisor) is None)
