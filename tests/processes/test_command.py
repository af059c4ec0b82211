from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from taskrun.processes import process
from taskrun.processes.command import CommandResult, OnText, run_command
from taskrun.processes.excerpt import KEEP
from taskrun.processes.liveness_lock import LivenessLock
from taskrun.processes.output import CHUNK

from .conftest import Census, Printed, open_fds

pytestmark = pytest.mark.usefixtures("no_leak")


def ignore(_stream: str, _text: str) -> None: ...


async def command(
    words: str | Sequence[str], on_text: OnText = ignore, grace: float = 5, **options: Any
) -> CommandResult:
    return await run_command(words, on_text=on_text, grace=grace, **options)


async def start(words: str, grace: float = 5) -> tuple[asyncio.Task[CommandResult], list[str]]:
    """Start a command and wait for its first line, which says that it is ready; gives the lines of its stdout."""
    lines: list[str] = []
    ready = asyncio.Event()

    def on_text(stream: str, text: str) -> None:
        if stream == "stdout":  # on stderr, shells tell of signals
            lines.extend(text.splitlines())
            ready.set()

    task = asyncio.create_task(command(words, on_text, grace))
    await ready.wait()
    return task, lines


async def cancel(task: asyncio.Task[CommandResult]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# ---- what runs


async def test_a_string_goes_to_the_shell_and_a_list_does_not() -> None:
    assert (await command("echo $((1 + 1))")).stdout == "2\n"
    assert (await command(["echo", "$((1 + 1))"])).stdout == "$((1 + 1))\n"


@pytest.mark.parametrize("text", ["-x", "+x", "-s"])
async def test_a_string_is_never_an_option_of_the_shell(text: str) -> None:
    done = await command(text)
    assert done.code == 127
    assert f"{text}: not found" in done.stderr or f"{text}: command not found" in done.stderr


async def test_a_path_may_be_a_word_of_a_list(tmp_path: Path) -> None:
    assert (await command(["echo", tmp_path])).stdout == f"{tmp_path}\n"  # type: ignore[list-item]


async def test_no_words_are_an_error() -> None:
    with pytest.raises(ValueError, match="name of a program"):
        await command([])


async def test_it_runs_in_its_folder_with_more_environment(tmp_path: Path) -> None:
    result = await command('pwd -P; echo "$GREETING $HOME"', cwd=tmp_path, env={"GREETING": "hi"})
    assert result.stdout.splitlines() == [str(tmp_path.resolve()), f"hi {os.environ.get('HOME', '')}"]


@pytest.mark.parametrize(("stdin", "seen"), [("text é", "text é"), (b"bytes", "bytes"), ("", ""), (None, "")])
async def test_it_reads_what_it_is_given(stdin: str | bytes | None, seen: str) -> None:
    assert (await command(["cat"], stdin=stdin)).stdout == seen


async def test_more_input_than_a_pipe_holds_does_not_hang() -> None:
    assert (await command("wc -c", stdin="x" * 1_000_000)).stdout.strip() == "1000000"


async def test_both_streams_and_the_code_come_back() -> None:
    assert await command("echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")


async def test_a_signal_is_a_negative_code() -> None:
    assert (await command("kill -9 $$")).code == -signal.SIGKILL


@pytest.mark.parametrize("words", [["no-such-program-here", "x"], ["./nothing"]])
async def test_an_unknown_program_is_named(words: list[str]) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await command(words)
    assert caught.value.filename == words[0]


async def test_an_unknown_folder_is_named() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await command(["true"], cwd="/no/such/folder")
    assert caught.value.filename == "/no/such/folder"


async def test_an_unknown_program_in_a_shell_string_is_code_127() -> None:
    assert (await command("no-such-program-here")).code == 127


async def test_it_gets_no_descriptor_of_the_engine(tmp_path: Path) -> None:
    lock = LivenessLock(tmp_path / "lock")
    code = "import os; print([fd for fd in range(3, 300) if os.path.exists(f'/dev/fd/{fd}')])"
    result = await command([sys.executable, "-S", "-c", code], lock_fd=lock.fd)
    lock.close()
    assert result.stdout == "[]\n"


async def test_signals_that_its_parents_ignore_reach_it() -> None:
    code = "import signal as s; print([s.getsignal(n) == s.SIG_DFL for n in (s.SIGTERM, s.SIGHUP, s.SIGQUIT)])"
    assert (await command([sys.executable, "-S", "-c", code])).stdout == "[True, True, True]\n"


# ---- what it prints


async def test_lines_come_while_it_runs(tmp_path: Path) -> None:
    go = tmp_path / "go"
    await command(f"echo ready; while [ ! -e {go} ]; do sleep 0.01; done", lambda _stream, _text: go.touch())


async def test_lines_keep_their_order_and_their_stream() -> None:
    printed = Printed()
    await command("seq 1000; seq 1000 >&2; printf part", printed)
    numbers = [str(n) for n in range(1, 1001)]
    assert printed.of("stdout") == [*numbers, "part"]
    assert printed.of("stderr") == numbers


async def test_a_flood_is_handed_on_whole_and_kept_in_part() -> None:
    seen = 0

    def count(_stream: str, text: str) -> None:
        nonlocal seen
        seen += len(text)

    line = "x" * 999
    result = await command(f"yes {line} | head -c 100000000", count)
    assert seen == 100_000_000
    assert len(result.stdout) <= KEEP
    assert "bytes left out" in result.stdout


async def test_endless_output_does_not_keep_the_loop_from_a_cancel() -> None:
    task, _ = await start("yes")
    await cancel(task)


# ---- what it leaves behind


async def test_a_grandchild_that_holds_stdout_does_not_hang_and_is_gone(census: Census) -> None:
    result = await command("sleep 600 & echo done")
    assert result.stdout == "done\n"
    assert not census.alive()


async def test_whoever_has_enough_makes_the_command_wait() -> None:
    seen = 0

    def slowly(_stream: str, text: str) -> bool:
        nonlocal seen
        seen += len(text)
        return True

    task = asyncio.create_task(command("yes", slowly))
    while not seen:
        await asyncio.sleep(0.001)
    for _ in range(1000):  # turns of the loop, in each of which it could have read a chunk
        await asyncio.sleep(0)
    assert seen < 20 * CHUNK
    await cancel(task)


ESCAPES = {
    "background": "sleep 600 & sleep 600",
    "pipeline": "sleep 600 | sleep 600 | cat",
    "setsid": "setsid sleep 600 & sleep 600",
    "double fork": "(setsid sh -c 'sleep 600 & sleep 600' &) ; sleep 600",
    "TERM ignored": "trap '' TERM; sleep 600 & sleep 600",
    "stopped": "kill -STOP $$",
}
needs_subreaper = {"double fork"} if sys.platform != "linux" else set()


@pytest.mark.parametrize("name", sorted(ESCAPES.keys() - needs_subreaper))
async def test_after_a_cancel_nothing_is_left(name: str, census: Census) -> None:
    task, _ = await start(f"echo ready; {ESCAPES[name]}", grace=0.2)
    await asyncio.sleep(0.05)  # so that its children are there, in most runs
    await cancel(task)
    assert not census.alive()


@pytest.mark.skipif(sys.platform != "linux", reason="no subreaper")
async def test_a_daemon_that_it_leaves_is_gone_when_it_has_ended(census: Census) -> None:
    assert (await command("(setsid sh -c 'sleep 600 & sleep 600' &)")).code == 0
    assert not census.alive()


async def test_a_cancel_asks_before_it_kills() -> None:
    task, lines = await start("trap 'echo bye; exit' TERM; echo ready; while :; do sleep 0.01; done", grace=60)
    await cancel(task)
    assert lines == ["ready", "bye"]


async def test_a_stopped_process_is_asked_too() -> None:
    task, lines = await start(
        "trap 'echo bye; exit' TERM; echo ready; kill -STOP $$; echo went on; sleep 600", grace=60
    )
    await cancel(task)
    assert "bye" in lines


async def test_the_whole_group_has_the_grace_period(tmp_path: Path) -> None:
    """The shell dies of the TERM at once, the child beside it still cleans up."""
    child = f"trap 'sleep 0.2; touch {tmp_path}/cleaned; exit' TERM; echo ready; while :; do sleep 0.01; done"
    task, _ = await start(f'sh -c "{child}" & wait', grace=60)
    await cancel(task)
    assert (tmp_path / "cleaned").exists()


async def test_a_second_cancel_ends_the_grace(census: Census) -> None:
    task, lines = await start("trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done", grace=3600)
    task.cancel()
    while "asked" not in lines:
        await asyncio.sleep(0.01)
    await cancel(task)
    assert not census.alive()


async def test_cancels_at_any_instant_leak_nothing(census: Census) -> None:
    chance = random.Random(7)
    fds = open_fds()
    for _ in range(50):
        task = asyncio.create_task(command("sleep 600 & sleep 600"))
        await asyncio.sleep(chance.random() * 0.04)
        await cancel(task)
        assert open_fds() == fds
    assert not census.alive()


async def test_when_its_supervisor_is_killed_it_is_killed_too(census: Census) -> None:
    task, _ = await start("echo ready; sleep 600 & sleep 600")
    os.kill(census.supervisors()[0], signal.SIGKILL)
    assert (await task).code == -signal.SIGKILL
    assert census.gone()


async def test_when_its_supervisor_is_stopped_a_cancel_ends_both(
    census: Census, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "OVERDUE", 0.1)
    task, _ = await start("echo ready; exec sleep 600", grace=0.1)
    (supervisor,) = census.supervisors()
    os.kill(supervisor, signal.SIGSTOP)
    await cancel(task)
    assert census.gone()
