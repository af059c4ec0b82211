from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taskrun.model.errors import WorkerCrashed
from taskrun.processes.command_file import (
    CHUNK,
    END,
    OUT,
    START,
    End,
    Processes,
    UnknownVersion,
    read_facts,
    record,
    records,
    write_facts,
    write_processes,
)
from taskrun.processes.kept_file import Identity, KeptFile
from taskrun.processes.leftovers import MARK, end_leftovers, signal_supervisor
from taskrun.processes.process_table import boot, process
from taskrun.processes.surviving_command import (
    CommandSpec,
    TimedOut,
    end_command,
    files_of,
    under_way,
)
from tests.waiting import until_async

from .conftest import Census
from .surviving import Engine, Reader, order

pytestmark = pytest.mark.usefixtures("no_leak")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "commands")


async def test_it_is_as_a_plain_command_is(engine: Engine, tmp_path: Path) -> None:
    script = "import os, sys; print(sys.stdin.read(), os.getcwd(), os.environ['A'], sys.argv[1:]); sys.exit(3)"
    words = [sys.executable, "-S", "-c", script, "a b", "$(c)", "-d\n", os.fsdecode(b"\xff")]
    reader = Reader()
    result = await engine.run(order(words, stdin="in", env={"A": "é"}, cwd=str(tmp_path)), reader)
    assert result == (3, f"in {tmp_path} é ['a b', '$(c)', '-d\\n', '\\udcff']\n", "")
    assert reader.lines == [result.stdout[:-1]]


@pytest.mark.parametrize(
    "wanted",
    [order(["no such program"]), order("true", cwd="/no such folder"), order(["/etc/passwd"])],
    ids=["program", "folder", "no program"],
)
async def test_what_cannot_be_started_says_so(engine: Engine, wanted: CommandSpec) -> None:
    with pytest.raises((FileNotFoundError, PermissionError)) as raised:
        await engine.run(wanted)
    assert raised.value.filename == (wanted.cwd or wanted.command[0])


async def test_files_and_folder_are_for_the_user_alone(engine: Engine) -> None:
    reader = Reader()
    await engine.run_until(order("echo 1; sleep 300"), reader, lambda: reader.lines)
    (file,) = files_of(engine.folder)
    assert (engine.folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    await end_command(file, 0.0)
    assert not files_of(engine.folder)


@pytest.mark.parametrize("how", ["open", "link"])
async def test_a_folder_that_others_can_write_to_is_refused(engine: Engine, tmp_path: Path, how: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(0o700)
    if how == "link":
        engine.folder.symlink_to(elsewhere)
    else:
        engine.folder.mkdir(0o700)
        engine.folder.chmod(0o777)
    with pytest.raises(PermissionError):
        await engine.run(order("true"))


async def test_two_that_follow_it_at_once_begin_it_once(engine: Engine, tmp_path: Path) -> None:
    oracle, gate = tmp_path / "oracle", tmp_path / "gate"
    wanted = order(f"echo begun | tee -a {oracle}; while [ ! -e {gate} ]; do sleep 0.02; done; exit 5")
    readers = [Reader() for _ in range(4)]
    running = [asyncio.ensure_future(engine.run(wanted, reader)) for reader in readers]
    await until_async(lambda: all(reader.lines for reader in readers))
    gate.touch()
    assert [result.code for result in await asyncio.gather(*running)] == [5] * 4
    assert oracle.read_text() == "begun\n"
    assert [reader.lines for reader in readers] == [["begun"]] * 4


async def test_the_next_reads_on_where_the_last_has_left_it(engine: Engine, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    reader = Reader()
    wanted = order(f"printf 'one\\ntw'; while [ ! -e {gate} ]; do sleep 0.02; done; printf 'o\\nthree'")
    await engine.run_until(wanted, reader, lambda: reader.lines)
    gate.touch()
    await until_async(lambda: not under_way(engine.folder))
    result = await engine.run(wanted, reader)
    assert reader.lines == ["one", "two", "three"]
    assert result.stdout == "one\ntwo\nthree"


async def left_and_ended(engine: Engine, tmp_path: Path, reader: Reader) -> CommandSpec:
    """A command that has printed two lines, of which one was read, and that has ended since nobody follows it."""
    gate = tmp_path / "gate"
    wanted = order(f"echo 1; while [ ! -e {gate} ]; do sleep 0.02; done; echo 2")
    await engine.run_until(wanted, reader, lambda: reader.lines)
    gate.touch()
    await until_async(lambda: not under_way(engine.folder))
    return wanted


async def test_one_that_has_ended_is_not_told_as_begun_so_that_no_timeout_cuts_off_the_reading(
    engine: Engine, tmp_path: Path
) -> None:
    reader = Reader()
    wanted = await left_and_ended(engine, tmp_path, reader)
    assert len(reader.begun_at) == 1
    assert (await engine.run(wanted, reader)).code == 0
    assert len(reader.begun_at) == 1
    assert reader.lines == ["1", "2"]


async def test_a_cancel_while_the_output_of_one_that_has_ended_is_read_is_a_cancel(
    engine: Engine, tmp_path: Path
) -> None:
    reader = Reader()
    wanted = await left_and_ended(engine, tmp_path, reader)
    reader.full = True  # it rests after what it has read
    running = asyncio.ensure_future(engine.run(wanted, reader))
    await until_async(lambda: reader.lines == ["1", "2"])
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not files_of(engine.folder)


async def test_another_call_under_its_key_takes_its_place(engine: Engine, census: Census) -> None:
    reader = Reader()
    await engine.run_until(order("echo 1; sleep 300"), reader, lambda: reader.lines)
    assert (await engine.run(order("echo 2", call="other"))).stdout == "2\n"
    await until_async(lambda: not census.commands())  # a supervisor without a further command ends in a moment


async def test_without_rerun_a_second_execution_is_refused_also_after_a_loss_of_power(engine: Engine) -> None:
    wanted = order("echo 1; sleep 300", rerun=False)
    reader = Reader()
    await engine.run_until(wanted, reader, lambda: reader.lines)
    (command,) = under_way(engine.folder)
    with KeptFile(command.path) as file:
        identity = file.identity()
        signal_supervisor(identity, signal.SIGKILL)
        end_leftovers(identity)
        write_processes(file.fd, Processes())  # the last that was written is lost
        write_facts(file.fd, {**(read_facts(file.fd) or {}), "boot": "another"})
    with pytest.raises(WorkerCrashed):
        await engine.run(wanted)
    assert not files_of(engine.folder)


async def test_without_rerun_what_the_journal_knows_is_not_begun_without_its_file(engine: Engine) -> None:
    reader = Reader()
    reader.position = START
    with pytest.raises(WorkerCrashed):
        await engine.run(order("true", rerun=False), reader)
    assert (await engine.run(order("true"), reader)).code == 0


async def test_its_supervisor_keeps_its_timeout_while_nobody_follows(engine: Engine) -> None:
    wanted = order("echo 1; sleep 300", timeout=0.5)
    reader = Reader()
    await engine.run_until(wanted, reader, lambda: reader.lines)
    await until_async(lambda: not under_way(engine.folder))
    with pytest.raises(TimedOut):
        await engine.run(wanted)


# ---- whom nobody may kill


@pytest.mark.parametrize("role", ["supervisor", "leader"])
def test_a_process_that_only_has_the_id_is_left_alone(role: str) -> None:
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as other:
        found = process(other.pid)
        assert found is not None
        fake = Processes()._replace(**{role: other.pid, f"{role}_started": found.started - 1})
        for identity in (Identity("token", boot(), fake), Identity("token", "another boot", fake)):
            signal_supervisor(identity, signal.SIGKILL)
            end_leftovers(identity)
        assert other.poll() is None
        true = Processes()._replace(**{role: other.pid, f"{role}_started": found.started})
        signal_supervisor(Identity("token", boot(), true), signal.SIGKILL)
        end_leftovers(Identity("token", boot(), true))
        assert other.wait() == -signal.SIGKILL


def test_what_has_its_mark_is_found_wherever_it_went() -> None:
    environment = {**os.environ, MARK: "run.1.2.3"}
    with subprocess.Popen(["setsid", "sleep", "300"], env=environment) as left:
        end_leftovers(Identity("run.1.2.33", boot(), Processes()))
        assert left.poll() is None
        end_leftovers(Identity("run.1.2.3", boot(), Processes()))
        assert left.wait() == -signal.SIGKILL


# ---- the file


def test_a_record_that_was_cut_off_is_none_and_makes_room(tmp_path: Path) -> None:
    with KeptFile(tmp_path / "run.file") as file:
        file.begin({"boot": boot()}, START, synced=False)
        whole = record(OUT, 1.0, "one") + record(OUT, 2.0, "x" * (2 * CHUNK))
        os.pwrite(file.fd, whole + record(OUT, 3.0, "three")[:-1], START)
        texts = [found.text for found in records(file.fd, START)]
        assert [len(text) for text in texts] == [3, 2 * CHUNK]
        file.begin({"boot": boot()}, START, synced=False)
        assert file.path.stat().st_size == START + len(whole)


def test_a_place_beyond_the_file_is_where_it_goes_on(tmp_path: Path) -> None:
    with KeptFile(tmp_path / "run.file") as file:
        file.begin({"boot": boot()}, START + 1000, synced=False)
        assert file.path.stat().st_size == START + 1000


def test_an_end_counts_unless_it_was_cut_off(tmp_path: Path) -> None:
    facts = {"boot": boot()}
    with KeptFile(tmp_path / "run.file") as file:
        file.begin(facts, START, synced=False)
        assert not file.ended(START, facts)
        os.pwrite(file.fd, record(END, 1.0, End(-15).text()), START)
        assert file.ended(START, facts)
        assert not file.ended(START, {"boot": "another"})
        file.mark(cut_off=True)
        assert not file.ended(START, facts)


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with KeptFile(tmp_path / "run.file") as file:
        write_facts(file.fd, {"version": 2})
        with pytest.raises(UnknownVersion):
            read_facts(file.fd)
