"""The job `notify`: what a webhook gets, what a command and the desktop get, and what counts as delivered."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskrun.builtins.notify import _desktop, notify
from taskrun.model.config import load
from taskrun.model.errors import ConfigError
from taskrun.model.notify_config import Way
from taskrun.testing import TestQueue
from tests.builtin_jobs.hooks import Hooks, hooks
from tests.cli.processes import plain
from tests.waiting import until_async

ODD = 'it\'s $(touch pwned) "a"\n--b'
MESSAGE = {
    "event": "failed",
    "job": "backup",
    "run": "abc",
    "status": "failed",
    "reason": None,
    "error": {"type": "ValueError", "message": "ö"},
    "title": "backup failed",
    "text": ODD,
    "at": "2026-03-01T00:00:00.000+00:00",
}


@pytest.fixture
def server() -> Iterator[Hooks]:
    with hooks() as found:
        yield found


def given(way: Way) -> dict[str, Any]:
    return {**MESSAGE, "to": way.label, "way": way.target()}


async def test_a_webhook_gets_the_json_signed(server: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "s3cret")
    async with TestQueue([notify]) as queue:
        assert await queue.jobs.notify.run(given(Way(webhook=server.address, secret="env:HOOK"))) == "204 No Content"
    (post,) = server.posts
    assert post.path == "/hook/secret?token=1"
    assert json.loads(post.body) == MESSAGE
    assert list(json.loads(post.body)) == ["event", "job", "run", "status", "reason", "error", "title", "text", "at"]
    assert post.headers["Content-Type"] == "application/json"
    signature = hmac.new(b"s3cret", post.body, hashlib.sha256).hexdigest()
    assert post.headers["X-Taskrun-Signature"] == f"sha256={signature}"


async def test_any_answer_but_2xx_is_a_failure_and_a_retry_sends_the_same(server: Hooks) -> None:
    server.answers = [500, 302, 0, 404, 201]
    async with TestQueue([notify]) as queue:
        run = await queue.jobs.notify.start(given(Way(webhook=server.address.replace("//", "//me:pw@"))))
        for attempt, wait in enumerate(("10s", "20s", "40s", "80s"), 1):
            await until_async(lambda n=attempt: len(server.posts) == n)  # type: ignore[misc]
            await until_scheduled(queue, run)
            await queue.advance(wait)
        assert await run.result() == "201 Created"
        info = await run.info()
    assert len({post.body for post in server.posts}) == 1
    assert server.posts[0].headers["Authorization"] == "Basic bWU6cHc="
    assert "X-Taskrun-Signature" not in server.posts[0].headers
    assert info.attempt == 5
    shown = json.dumps(info.input) + str(info)
    assert "/hook/secret" not in shown
    assert "me:pw" not in shown


async def until_scheduled(queue: TestQueue, run: Any) -> None:
    for _ in range(1000):
        if await run.status() == "scheduled":
            return
        await asyncio.sleep(0.01)
    raise AssertionError(await run.status())


async def test_it_is_tried_six_times_and_a_test_once(server: Hooks) -> None:
    server.answers = [503] * 7
    async with TestQueue([notify]) as queue:
        run = await queue.jobs.notify.start(given(Way(webhook=server.address)))
        for attempt, wait in enumerate((10, 20, 40, 80, 160), 1):
            await until_async(lambda n=attempt: len(server.posts) == n)  # type: ignore[misc]
            await until_scheduled(queue, run)
            await queue.advance(wait)
        with pytest.raises(Exception, match=r"http://127.0.0.1:\d+/\*\*\* answered 503"):
            await run.result()
        once = await queue.jobs.notify.start({**given(Way(webhook=server.address)), "event": "test"})
        with pytest.raises(Exception, match="answered 503"):
            await once.result()
    assert len(server.posts) == 7


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed without an answer"),
        (b"SSH-2.0\r\n", "not HTTP"),
        (b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""),
    ],
)
async def test_what_is_no_answer_of_a_web_server_is_a_failure(answer: bytes, said: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    way = Way(webhook=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x")
    async with server, TestQueue([notify]) as queue:
        run = await queue.jobs.notify.start({**given(way), "event": "test"})
        if said:
            with pytest.raises(Exception, match=said):
                await run.result()
        else:
            assert await run.result() == "200 OK"


async def test_a_port_that_is_closed_and_a_secret_that_is_not_there_are_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        way = Way(webhook=f"http://127.0.0.1:{free.getsockname()[1]}/x")
    async with TestQueue([notify]) as queue:
        run = await queue.jobs.notify.start({**given(way), "event": "test"})
        with pytest.raises(Exception, match=r"\*\*\*: .*(refused|Connect)"):
            await run.result()
        unset = Way(webhook="http://127.0.0.1:1/", secret="env:NO_SUCH_SECRET")
        run = await queue.jobs.notify.start({**given(unset), "event": "test"})
        with pytest.raises(Exception, match="NO_SUCH_SECRET of secret is not set"):
            await run.result()


async def test_a_command_gets_words_and_the_json_on_its_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "cat > got; printf '<%s>' {title} {text} {run} {job} {event} > words"
    async with TestQueue([notify]) as queue:
        await queue.jobs.notify.run(given(Way(command=line)))
        with pytest.raises(Exception, match="7"):
            await queue.jobs.notify.run({**given(Way(command="exit 7")), "event": "test"})
    assert json.loads((tmp_path / "got").read_text()) == MESSAGE
    assert (tmp_path / "words").read_text() == f"<backup failed><{ODD}><abc><backup><failed>"
    assert not (tmp_path / "pwned").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac has another command for it")
async def test_the_desktop_is_told_by_notify_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "notify-send"
    fake.write_text(f"#!/bin/sh\nprintf '<%s>' \"$@\" > {tmp_path}/got\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    async with TestQueue([notify]) as queue:
        await queue.jobs.notify.run({**given(Way(desktop=True)), "text": "a < b & c"})
    assert (tmp_path / "got").read_text() == (
        "<--app-name=taskrun><--urgency=critical><--><backup failed><a &lt; b &amp; c>"
    )


def test_on_a_mac_the_text_is_never_read_as_a_script() -> None:
    line = _desktop("it's", ODD, "failed", "darwin")
    assert line[0] == "osascript"
    assert line[-2:] == ["it's", ODD]


# ---- the tables


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("on = ['failed']", "needs desktop, command or webhook"),
        ("desktop = false", "needs desktop, command or webhook"),
        ("on = ['faild']\ndesktop = true", "on must be a list of failed, recovered"),
        ("on = []\ndesktop = true", "on must be a list of"),
        ("desktop = 'yes'", "desktop must be true or false"),
        ("webhook = 'ftp://x/y'", "webhook must be an address"),
        ("webhook = 'https:///x'", "webhook must be an address"),
        ("webhook = 'https://x:y/z'", "webhook must be an address"),
        ("command = 'mail -s \"{title}\"'", "command"),
        ("command = 'mail {subject}'", "subject"),
        ("webhook = 'http://a'\nsecret = 'env:'", "secret must be text, or the name of a variable"),
        ("desktop = true\nsecret = 'x'", "secret does nothing without webhook"),
        ("desktop = true\njob = 'x'", "unknown key job; did you mean jobs"),
    ],
)
def test_a_mistake_in_a_table_names_it(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "taskrun.toml"
    path.write_text(f"[[notify]]\n{text}\n")
    with pytest.raises(ConfigError, match=r"\[\[notify\]\] ") as error:
        load(path, {})
    assert fault in str(error.value)


def test_tables_are_read_with_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "taskrun.toml"
    path.write_text("[[notify]]\ndesktop = true\n[[notify]]\non = ['asked']\njobs = ['a*']\ncommand = 'x {text}'\n")
    first, second = load(path, {}).notify
    assert first.on == ("failed", "recovered", "missed", "late", "slow")
    assert first.wants("late", "any job")
    assert not first.wants("succeeded", "any job")
    assert (second.wants("asked", "abc"), second.wants("asked", "b"), second.wants("asked", "exec", "a")) == (
        True,
        False,
        True,
    )


# ---- a daemon that is killed


def test_what_a_killed_daemon_was_telling_is_told_by_the_next_by_the_same_run(tmp_path: Path, server: Hooks) -> None:
    server.answers = [None]
    (tmp_path / "jobs").mkdir()
    code = "from taskrun import job\n@job(retry=0)\nasync def fails() -> None:\n    raise ValueError('no luck')\n"
    (tmp_path / "jobs" / "all.py").write_text(code)
    (tmp_path / "taskrun.toml").write_text(f'[[notify]]\non = ["failed"]\nwebhook = "{server.address}"\n')
    try:
        assert plain(tmp_path, "run", "fails").returncode == 1
        wait_until(lambda: len(server.posts) == 1)
        os.kill(json.loads(plain(tmp_path, "daemon", "status", "--json").stdout)["pid"], signal.SIGKILL)
        wait_until(lambda: plain(tmp_path, "daemon", "status").returncode == 3)
        plain(tmp_path, "daemon", "start")
        wait_until(lambda: len(server.posts) == 2)
        found = json.loads(plain(tmp_path, "wait", "notify@last", "--json").stdout)
        assert found["status"] == "succeeded"
        assert len(json.loads(plain(tmp_path, "list", "--job", "notify", "--json").stdout)) == 1
        assert server.posts[0].body == server.posts[1].body
        assert server.address.encode() not in (tmp_path / ".taskrun" / "daemon.log").read_bytes()
    finally:
        plain(tmp_path, "daemon", "stop")


def test_a_daemon_takes_up_an_edited_table_before_the_next_run(tmp_path: Path, server: Hooks) -> None:
    settings = '[taskrun]\nreload = "manual"\n[jobs.fails]\ncommand = "exit 3"\n'
    (tmp_path / "taskrun.toml").write_text(settings)
    try:
        plain(tmp_path, "daemon", "start")
        (tmp_path / "taskrun.toml").write_text(f'{settings}[[notify]]\nwebhook = "{server.address}"\n')
        assert plain(tmp_path, "run", "fails").returncode == 1
        wait_until(lambda: len(server.posts) == 1)
        told = json.loads(server.posts[0].body)
        assert (told["event"], told["job"], told["title"]) == ("failed", "fails", "fails failed")
        tried = plain(tmp_path, "notify", "test")
        assert (tried.returncode, len(server.posts)) == (0, 2)
        server.answers = [404]
        closed = plain(tmp_path, "notify", "test")
        assert closed.returncode == 1
        assert "/*** answered 404" in closed.stderr
        assert "/hook/secret" not in closed.stderr
    finally:
        plain(tmp_path, "daemon", "stop")


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not reached():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
