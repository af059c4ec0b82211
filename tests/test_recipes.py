"""The recipes of docs/automation.md, executed as they are written: the tables, then each line that is typed.

The programs that they call are scripts that note how they were called. What has effects outside of the folder is only looked at.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from taskrun.model.command_config import CommandFile
from taskrun.model.config import load

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "automation.md").read_text()
README = (ROOT / "README.md").read_text()
PROGRAMS = ["curl", "convert", "fetch-mail", "ffmpeg", "git", "mail", "make", "restic", "rsync", "sync-photos", "tidy"]
PROGRAMS += ["notify-send", "osascript"]
DESKTOP = "notify-send --app-name=taskrun --urgency=normal --"
NOT_EXECUTED = {"taskrun daemon install"}
PATIENCE = 60.0


class Recipe(NamedTuple):
    """A section with tables: its title, its `taskrun.toml`, and the lines that are typed."""

    title: str
    toml: str
    typed: list[str]


def recipes() -> Iterator[Recipe]:
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        toml = "".join(re.findall(r"^```toml\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
        console = "".join(re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
        if toml:
            yield Recipe(title, toml, re.findall(r"^\$ (.*)$", console, re.MULTILINE))


RECIPES = {recipe.title: recipe for recipe in recipes()}


class Folder:
    """A project in which the programs of the recipes only note their arguments."""

    def __init__(self, root: Path, runtime: Path) -> None:
        self.root = root
        self.calls = root / "calls"
        self.calls.touch()
        bin = root / "bin"
        bin.mkdir()
        note = (
            f"#!/bin/sh\nprintf '%s\\n' \"${{0##*/}} $*\" >> {shlex.quote(str(self.calls))}\n"
            f"test ! -e {shlex.quote(str(root))}/broken-${{0##*/}}\n"
        )
        for name in PROGRAMS:
            (bin / name).write_text(note)
            (bin / name).chmod(0o755)
        (bin / "taskrun").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m taskrun "$@"\n')
        (bin / "taskrun").chmod(0o755)
        path = f"{bin}:{os.environ['PATH']}"
        self.env = {
            **os.environ,
            "PATH": path,
            "XDG_RUNTIME_DIR": str(runtime),
            "PYTHONPATH": str(ROOT),
            "HOME": str(root),
        }

    def type(self, line: str) -> str:
        """Types a line in a shell; returns what it printed."""
        done = subprocess.run(
            ["/bin/sh", "-c", line], cwd=self.root, env=self.env, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def break_program(self, name: str) -> None:
        """Makes a program fail."""
        (self.root / f"broken-{name}").touch()

    def called(self) -> list[str]:
        """Returns how the programs were called."""
        return self.calls.read_text().splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    root = tmp_path / "project"
    root.mkdir()
    with tempfile.TemporaryDirectory(prefix="tr", dir="/tmp") as runtime:
        made = Folder(root, Path(runtime))
        yield made
        (root / "taskrun.toml").write_text("")
        made.type("taskrun daemon stop")


def declared(recipe: Recipe, tmp_path: Path) -> CommandFile:
    (tmp_path / "taskrun.toml").write_text(recipe.toml)
    return load(tmp_path / "taskrun.toml", {}).declared


@pytest.mark.parametrize("title", RECIPES)
def test_its_tables_are_valid(title: str, tmp_path: Path) -> None:
    assert declared(RECIPES[title], tmp_path).path


def test_the_tour_begins_with_a_command_that_runs_beside_those_of_init(folder: Folder) -> None:
    first, *_ = re.findall(r"^```(\w+)$", README.partition("## A tour")[2], re.MULTILINE)
    (toml, *_) = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert first == "toml"
    folder.type("taskrun init")
    with (folder.root / "taskrun.toml").open("a") as file:
        file.write(toml)
    assert folder.type("taskrun run tick --to 1") == "line 1\n"
    assert folder.type("taskrun run hello --name Ada") == "Hello, Ada.\n"
    assert "Filesystem" in folder.type("taskrun run disk --path /")


def backup(folder: Folder) -> None:
    (folder.root / "restic.env").write_text("RESTIC_REPOSITORY=here\n")


def videos(folder: Folder) -> None:
    (folder.root / "videos").mkdir()
    for name in ("a.mov", "it's b.mov", "c.txt"):
        (folder.root / "videos" / name).touch()


def nothing(folder: Folder) -> None:
    pass


PREPARED: dict[str, tuple[Callable[[Folder], None], list[str]]] = {
    "Any command, now": (nothing, ["make test", "ffmpeg -i in.mov out.mp4", "mail -s done me"]),
    "A backup at night": (
        backup,
        [
            "restic backup /data/photos --tag now",
            "mail -s taskrun: a test me",
            f"{DESKTOP} taskrun: a test Notifications of HOME arrive.",
        ],
    ),
    "A folder of videos": (
        videos,
        [
            "ffmpeg -n -i VIDEOS/a.mov -crf 28 VIDEOS/a.mov.mp4",
            "ffmpeg -n -i VIDEOS/it's b.mov -crf 28 VIDEOS/it's b.mov.mp4",
        ],
    ),
    "A nightly release": (
        nothing,
        [
            "git pull --ff-only",
            "make test",
            "make dist VERSION=1.2",
            "make publish VERSION=1.2",
            "make publish VERSION=1.2",
        ],
    ),
    "A crontab moved over": (nothing, ["tidy HOME/tmp --older 7"]),
}


def test_every_recipe_is_executed() -> None:
    assert PREPARED.keys() == {title for title, recipe in RECIPES.items() if recipe.typed}


@pytest.mark.parametrize("title", PREPARED)
def test_it_does_what_it_says(title: str, folder: Folder) -> None:
    prepare, called = PREPARED[title]
    prepare(folder)
    (folder.root / "taskrun.toml").write_text(RECIPES[title].toml)
    for line in RECIPES[title].typed:
        if line not in NOT_EXECUTED:
            printed = folder.type(line)
            if "retry @last" in line or " exec " in line:
                folder.type("taskrun wait @last")
            if " list " in line:
                assert printed, line
    places = {"VIDEOS": str(folder.root / "videos"), "HOME": str(folder.root)}
    expected = [re.sub("VIDEOS|HOME", lambda found: places[found[0]], line) for line in called]
    assert sorted(line for line in folder.called() if line in expected) == sorted(expected)
    by_the_clock = ("fetch-mail", "sync-photos", "tidy")  # where a slot happens to come meanwhile
    assert not [line for line in folder.called() if line not in expected and not line.startswith(by_the_clock)]


def test_a_backup_that_fails_for_good_is_told(folder: Folder) -> None:
    backup(folder)
    folder.break_program("restic")
    toml = RECIPES["A backup at night"].toml.replace('backoff = ["1m", "10m"]', "backoff = 0")
    (folder.root / "taskrun.toml").write_text(toml)
    folder.type("taskrun run backup || test $? = 1")
    folder.type("until grep -q mail calls && grep -q notify-send calls; do sleep 0.1; done")
    assert folder.called()[:3] == ["restic backup /data --tag daily"] * 3
    told = ["mail -s backup failed, after 3 attempts me", "notify-send --app-name=taskrun"]
    assert [line[: len(begun)] for line, begun in zip(sorted(folder.called()[3:]), told, strict=True)] == told


def test_the_watched_inbox_does_what_it_says(folder: Folder) -> None:
    for name in ("inbox", "done", "originals"):
        (folder.root / name).mkdir()
    (folder.root / "inbox" / "it's $(one).mov").write_text("there already")
    (folder.root / "bin" / "ffmpeg").write_text('#!/bin/sh\nfor last; do :; done\ntouch -- "$last"\n')
    toml = RECIPES["A watched inbox"].toml
    assert 'settle = "10s"' in toml
    (folder.root / "taskrun.toml").write_text(toml.replace('settle = "10s"', 'settle = "50ms"'))
    folder.type("taskrun daemon start")
    (folder.root / "inbox" / "-two.avi").write_text("new")
    (folder.root / "inbox" / "three.part").write_text("under way")
    wanted = {"originals/it's $(one).mov", "originals/-two.avi", "done/it's $(one).mov.mp4", "done/-two.avi.mp4"}
    deadline = time.monotonic() + PATIENCE
    while not all((folder.root / name).exists() for name in wanted):
        assert time.monotonic() < deadline, folder.type("taskrun list")
        time.sleep(0.05)
    assert [path.name for path in (folder.root / "inbox").iterdir()] == ["three.part"]
