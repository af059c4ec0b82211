"""`taskrun watch` as a person has it: a real process, real saves of an editor, real runs in flight."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskrun.cli.commands import watch as watch_command
from tests.cli.processes import ENV, Person, command, plain

HELLO = """
from taskrun import job

@job
async def hello(name: str = "you") -> str:
    return "hello " + name
"""
STEPPING = """
from taskrun import job, run, sleep
from helper import WORD

async def note(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")

@job
async def stepping(path: str, until: str) -> str:
    await run("note", note, path)
    await sleep(2)
    return WORD
"""
PATIENCE = 20.0


class Watch:
    """A `taskrun watch` whose output is a file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "watch.log"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                command("watch"), cwd=root, env=ENV, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        self.seen = 0

    def until(self, pattern: str) -> str:
        """Waits for a line beyond those that were waited for before, and returns it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            text = self.out.read_text()[self.seen :]
            if found := re.search(rf"^.*{pattern}.*$", text, re.MULTILINE):
                self.seen += found.end()
                return found.group()
            assert time.monotonic() < deadline, f"{pattern!r} never came:\n{self.out.read_text()}"
            assert self.process.poll() is None, self.out.read_text()
            time.sleep(0.02)

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with two job files and a helper."""
    (tmp_path / "taskrun.toml").write_text('[taskrun]\njobs = ["jobs"]\ngrace = "1s"\n')
    (tmp_path / "helper.py").write_text('WORD = "old"\n')
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "hello.py").write_text(HELLO)
    (tmp_path / "jobs" / "stepping.py").write_text(STEPPING)
    return tmp_path


@pytest.fixture
def watch(root: Path) -> Iterator[Watch]:
    """A watch that is under way, and ends well."""
    watch = Watch(root)
    assert watch.until("watching") == "watching jobs (3 files), taskrun.toml · 2 jobs"
    yield watch
    if watch.process.poll() is None:
        assert watch.end() == 0
    plain(root, "daemon", "stop")


def save(path: Path, text: str) -> None:
    """Saves as an editor does: another file takes its place."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    beside.replace(path)


def test_an_edit_is_reloaded_and_its_changed_input_is_shown_and_usable(watch: Watch, root: Path) -> None:
    (root / "jobs" / "hello.py").write_text(HELLO.replace('"you"', '"you", bitrate: int = 320'))
    line = watch.until("~ jobs/hello.py")
    assert re.search(r"→ reloaded in \d+ ms · hello input changed: \+ bitrate: int = 320$", line)
    assert plain(root, "start", "hello", "--bitrate", "1").returncode == 0


def test_files_that_come_go_and_move_bring_their_jobs_along(watch: Watch, root: Path) -> None:
    new, moved = root / "jobs" / "new.py", root / "jobs" / "moved.py"
    save(new, HELLO.replace("hello", "other"))
    assert "new job other" in watch.until(r"\+ jobs/new.py")
    new.rename(moved)
    watch.until(r"\+ jobs/moved.py")
    assert plain(root, "run", "other").stdout == "other you\n"
    held = plain(root, "start", "other", "--in", "1h").stdout.strip()
    moved.unlink()
    assert "other is gone (1 queued run held)" in watch.until("− jobs/moved.py")
    assert json.loads(plain(root, "show", held, "--json").stdout)["status"] == "scheduled"
    (root / "jobs" / "deep").mkdir()
    save(root / "jobs" / "deep" / "inner.py", HELLO.replace("hello", "inner"))
    watch.until(r"\+ jobs/deep/inner.py  → .*new job inner")


def test_a_broken_file_is_named_and_the_last_good_code_goes_on(watch: Watch, root: Path) -> None:
    file = root / "jobs" / "hello.py"
    save(file, HELLO + "def x(:\n")
    line = watch.until("~ jobs/hello.py")
    assert "✗ jobs/hello.py, line 7: SyntaxError: invalid syntax — keeping the last good version" in line
    assert plain(root, "run", "hello", "--name", "me").stdout == "hello me\n"
    save(file, "import no_such_module\n" + HELLO)
    assert "line 1: ModuleNotFoundError" in watch.until("~ jobs/hello.py")
    (root / "no_such_module.py").write_text("")
    watch.until(r"\+ no_such_module.py  → reloaded")
    save(file, HELLO.replace('"hello "', '"hi "'))
    watch.until("~ jobs/hello.py  → reloaded")
    assert plain(root, "run", "hello").stdout == "hi you\n"


def test_a_broken_file_does_not_hold_back_the_others(watch: Watch, root: Path) -> None:
    save(root / "jobs" / "stepping.py", STEPPING + "def x(:\n")
    watch.until("~ jobs/stepping.py .*keeping the last good version")
    save(root / "jobs" / "hello.py", HELLO.replace('"hello "', '"hi "'))
    watch.until("~ jobs/hello.py  → reloaded")
    assert "keeping the last good version" in watch.until("✗ jobs/stepping.py, line 14: SyntaxError")
    started = plain(root, "start", "hello")
    assert started.stderr.startswith(
        "warning: jobs/stepping.py:14: SyntaxError: invalid syntax; its last good version is used\n"
    )
    assert plain(root, "wait", started.stdout.strip()).returncode == 0
    assert plain(root, "start", "stepping", "--path", "x", "--until", "x", "--in", "1h").returncode == 0


def test_a_helper_counts_and_a_run_in_flight_goes_on_with_the_new_code(watch: Watch, root: Path) -> None:
    notes = root / "notes"
    run = plain(root, "start", "stepping", "--path", str(notes), "--until", "x").stdout.strip()
    deadline = time.monotonic() + PATIENCE
    while not notes.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    save(root / "helper.py", 'WORD = "new"\n')
    assert "1 run in flight goes on with the new code" in watch.until("~ helper.py")
    assert json.loads(plain(root, "wait", run, "--json").stdout)["output"] == "new"
    assert notes.read_text() == "x"


def test_settings_are_read_anew_and_a_mistake_in_them_changes_nothing(watch: Watch, root: Path) -> None:
    config = root / "taskrun.toml"
    good = config.read_text()
    save(config, good + "conc = 1\n")
    assert "unknown key conc" in watch.until("~ taskrun.toml")
    save(config, good + "\n[env]\nGREETING = 'x'\n")
    watch.until("~ taskrun.toml  → reloaded")
    save(config, good + "concurrency = 3\n")
    watch.until("~ taskrun.toml  → restarting")
    watch.until("watching jobs")
    assert plain(root, "run", "hello").stdout == "hello you\n"


def test_what_is_no_code_of_the_project_reloads_nothing(watch: Watch, root: Path) -> None:
    for name in ("notes.txt", "jobs/.hello.py.swp", "jobs/hello.py~", "jobs/_private.py", "unused.py", ".taskrun/x.py"):
        (root / name).write_text("1")
    (root / "jobs" / "__pycache__").mkdir(exist_ok=True)
    (root / "jobs" / "__pycache__" / "x.py").write_text("1")
    plain(root, "run", "hello")
    save(root / "helper.py", 'WORD = "new"\n')
    watch.until("~ helper.py  → reloaded")
    assert watch.out.read_text().count("reloaded") == 1


def test_it_takes_over_from_a_daemon_and_leaves_one_behind(root: Path) -> None:
    run = plain(root, "start", "hello", "--in", "1h").stdout.strip()
    watch = Watch(root)
    watch.until(r"taking over from the daemon \(pid \d+\)")
    watch.until("watching jobs")
    assert plain(root, "run", "hello").stdout == "hello you\n"
    assert watch.end() == 0
    assert "a daemon goes on with schedules and runs, as before" in watch.out.read_text()
    assert json.loads(plain(root, "show", run, "--json").stdout)["status"] == "scheduled"
    assert json.loads(plain(root, "daemon", "status", "--json").stdout)["running"]
    plain(root, "daemon", "stop")


def test_its_daemon_ends_with_it_however_it_ends(root: Path) -> None:
    watch = Watch(root)
    watch.until("watching jobs")
    watch.process.kill()
    watch.process.wait()
    deadline = time.monotonic() + PATIENCE
    while plain(root, "daemon", "status").returncode != 3:
        assert time.monotonic() < deadline, "the daemon outlived its watch"


def test_stopped_from_elsewhere_it_ends_and_says_so(root: Path) -> None:
    watch = Watch(root)
    watch.until("watching jobs")
    assert plain(root, "daemon", "stop").returncode == 0
    assert watch.process.wait(PATIENCE) == 0
    assert "stopped from elsewhere" in watch.out.read_text()


def test_on_a_terminal_the_log_scrolls_above_a_live_table_without_notifications_that_arrived(root: Path) -> None:
    config = root / "taskrun.toml"
    config.write_text(config.read_text() + '\n[[notify]]\ncommand = "true"\n')
    person = Person(root, "watch")
    person.until("watching jobs")
    assert plain(root, "run", "hello").returncode == 0
    assert plain(root, "notify", "test").returncode == 0
    person.until("done")
    save(root / "jobs" / "hello.py", HELLO.replace('"hello "', '"hi "'))
    person.until("reloaded in")
    person.type(b"\x03")
    assert person.end() == 0
    lines = person.screen()
    assert lines[0].startswith("watching jobs")
    assert any("~ jobs/hello.py" in line for line in lines), lines
    table = next(at for at, line in enumerate(lines) if line.startswith("RUN "))
    assert "hello" in lines[table + 1]
    assert not any("notify" in line for line in lines[table:])


def test_a_schedule_that_is_wrong_is_named_and_ends_nothing(root: Path) -> None:
    config = root / "taskrun.toml"
    good = config.read_text() + '[[schedule]]\njob = "hello"\ncron = "@hourly"\ninput = { name = "Ada" }\n'
    watch = Watch(root)
    watch.until("watching jobs")
    save(config, good)
    watch.until("~ taskrun.toml .*reloaded in")
    for mistake, said in ((("@hourly", "99 * * * *"), "cron: cron"), (('"Ada"', "5"), "input.name: expected str")):
        save(config, good.replace(*mistake))
        watch.until(rf"\[\[schedule\]\] {said}")
        assert "[[schedule]]" in plain(root, "list").stderr
    save(config, good)
    watch.until("reloaded in")
    listed = json.loads(plain(root, "schedule", "--json").stdout)
    assert [(one["job"], one["problem"]) for one in listed] == [("hello", None)]
    assert watch.end() == 0


async def test_ctrl_c_while_the_daemon_is_being_started_ends_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with `watch` anyway, and must not be taken for the one that goes on in place of the one before."""
    launching, launched, ended = threading.Event(), threading.Event(), threading.Event()

    def launch(config: Any) -> Any:
        launching.set()
        assert launched.wait(20)
        return SimpleNamespace(end=ended.set)

    monkeypatch.setattr(watch_command, "launch_attached", launch)
    watching = asyncio.ensure_future(
        watch_command._watch_once(cast(Any, SimpleNamespace(config=None)), cast(Any, None))
    )
    await asyncio.to_thread(launching.wait, 20)
    watching.cancel()
    done, _ = await asyncio.wait([watching], timeout=0)
    assert not done
    launched.set()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert ended.is_set()
