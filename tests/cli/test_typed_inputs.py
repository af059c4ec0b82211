"""What is typed reaches the job as its type says, through the daemon and with `--local` alike."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskrun.cli.app import execute
from taskrun.cli.backend.connect import ProcessConnector
from taskrun.cli.exit_codes import Code
from tests.cli.fakes import FakeTerminal
from tests.cli.processes import Person
from tests.cli.test_fastpath import wait_until_warm

JOBS = """
import datetime as dt
import os
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from taskrun import job, pipe


@dataclass
class Image:
    source: Path
    sizes: list[Path] = field(default_factory=list)
    computed: int = field(init=False, default=3)


@dataclass
class Drop:
    source: Path


drops = pipe("drops", input=Drop)


@job(retry=0)
async def meet(at: dt.datetime | None = None, key: str = "k", json: bool = True) -> list[str]:
    return [str(at), key, str(json)]


@job(retry=0)
async def times(td: dt.timedelta | None = None, t: dt.time | None = None, d: dt.date | None = None, b: bytes = b"") -> Any:
    return [str(td), str(t), str(d), b.hex()]


@job(retry=0)
async def union(x: int | str, d: Decimal = Decimal(0)) -> Any:
    return [repr(x), str(d)]


@job(retry=0)
async def free(x: Any) -> str:
    return repr(x)


@job(retry=0)
async def read(p: Path, q: Path | None = None, many: list[Path] = [], default: Path = Path("a.txt")) -> list[str]:
    return [p.read_text(), str(q), *[one.read_text() for one in many], str(default), os.getcwd()]


@job(retry=0)
async def image(image: Image, note: str = "") -> Any:
    return [str(image.source), [str(one) for one in image.sizes], image.computed]


@job(retry=0, trigger=[drops.into(lambda one: {"source": str(one.source)})])
async def dropped(drop: Drop) -> str:
    return str(drop.source)
"""
CASES: list[tuple[str, object]] = [  # command lines, typed in the folder `songs`, and what the job returns
    ("meet --input.at 2026-11-26 --input.key mine --input.no-json", ["2026-11-26 00:00:00", "mine", "False"]),
    ("meet --input.at 2026-11-26T10:30+02:00", ["2026-11-26 10:30:00+02:00", "k", "True"]),
    ("times --td 90m", ["1:30:00", "None", "None", ""]),
    ("times --td 5400", ["1:30:00", "None", "None", ""]),
    ("times --td=-90m", ["-1 day, 22:30:00", "None", "None", ""]),
    ("times --t 9:30 --d 2026-11-26", ["None", "09:30:00", "2026-11-26", ""]),
    ("times --b hi", ["None", "None", "None", "6869"]),
    ("times --b @a.txt", ["None", "None", "None", b"mine".hex()]),
    ("union --x 007 --d 1.10", ["'007'", "1.10"]),
    ("union --x 7", ["7", "0"]),
    ("union --x null", ["'null'", "0"]),
    ("union --x 1e5", ["'1e5'", "0"]),
    ('free --x {"a":1}', "{'a': 1}"),
    ("free --x 007", "'007'"),
    ("free --x 1e999", "'1e999'"),
    ("read --p a.txt", ["mine", "None", "a.txt", "ROOT"]),
    ("read --p ../a.txt --q x", ["root's", "SONGS/x", "a.txt", "ROOT"]),
    ("read --p a.txt --many a.txt --many ../a.txt", ["mine", "None", "mine", "root's", "a.txt", "ROOT"]),
    ('read --input {"p":"a.txt"}', ["mine", "None", "a.txt", "ROOT"]),
    ("image --image.source a.txt --image.sizes b", ["SONGS/a.txt", ["SONGS/b"], 3]),
    ('image --image {"source":"a.txt"}', ["SONGS/a.txt", [], 3]),
]
REFUSED = {
    "meet --input.at soon": '--input.at "soon" is not a date and time, as in 2026-11-26',
    "times --td 5parsecs": "the units are ms, s, m, h, d, w and y",
    "times --b @nowhere": '--b "@nowhere" cannot be read: No such file or directory',
    "image --image.source x --image.computed 5": "there is no option --image.computed",
    "union": "--x is required",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a daemon that is stopped at the end."""
    project = tmp_path_factory.mktemp("typed")
    (project / "taskrun.toml").write_text('[taskrun]\njobs = ["jobs"]\ngrace = "1s"\n')
    (project / "jobs").mkdir()
    (project / "songs").mkdir()
    (project / "jobs" / "all.py").write_text(JOBS)
    (project / "a.txt").write_text("root's")
    (project / "songs" / "a.txt").write_text("mine")
    with tempfile.TemporaryDirectory(prefix="tr", dir="/tmp") as runtime, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        yield project
        asyncio.run(typed(project, ["daemon", "stop"]))


async def typed(folder: Path, words: list[str]) -> tuple[int, FakeTerminal]:
    """Runs a command line in the folder `songs`."""
    terminal = FakeTerminal(folder / "songs", env={"HOME": str(folder)})
    return await execute(words, terminal, ProcessConnector()), terminal


def meant(folder: Path, value: object) -> object:
    """Returns what a job returns in this folder."""
    songs = json.dumps(value).replace("SONGS", str(folder / "songs")).replace("ROOT", str(folder))
    return json.loads(songs)


@pytest.mark.parametrize("local", [[], ["--local"]], ids=["daemon", "local"])
@pytest.mark.parametrize(("line", "output"), CASES, ids=[line for line, _ in CASES])
async def test_a_job_gets_what_was_typed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, output: object, local: list[str]
) -> None:
    monkeypatch.chdir(folder / "songs")
    code, terminal = await typed(folder, ["run", *line.split(), *local])
    assert code == 0, terminal.chatter
    text = terminal.written
    assert (text.removesuffix("\n") if isinstance(output, str) else json.loads(text)) == meant(folder, output)


@pytest.mark.parametrize("local", [[], ["--local"]], ids=["daemon", "local"])
@pytest.mark.parametrize(("line", "said"), REFUSED.items())
async def test_what_does_not_fit_is_refused_before_anything_is_recorded(
    folder: Path, line: str, said: str, local: list[str]
) -> None:
    _, before = await typed(folder, ["list", "--json", "--all"])
    code, terminal = await typed(folder, ["run", *line.split(), *local])
    assert (code, said in terminal.chatter) == (Code.USAGE, True), terminal.chatter
    _, after = await typed(folder, ["list", "--json", "--all"])
    assert len(json.loads(after.written)) == len(json.loads(before.written))


async def test_an_event_has_paths_as_seen_from_the_caller_too(folder: Path) -> None:
    assert (await typed(folder, ["send", "drops", "--source", "a.txt"]))[0] == 0
    async with asyncio.timeout(20):
        while not (found := json.loads((await typed(folder, ["list", "--job", "dropped", "--json"]))[1].written)):
            await asyncio.sleep(0.02)
    assert found[0]["input"]["source"] == str(folder / "songs" / "a.txt")


def test_a_person_sees_how_each_option_is_written(folder: Path) -> None:
    for job, shown in (("meet", "--input.at DATETIME"), ("times", "--td DURATION as in 90m, or 5400 (seconds)")):
        person = Person(folder, "start", job, "--help")
        assert person.end() == 0
        assert shown in " ".join(person.seen.split()).replace("\x1b[2m", "").replace("\x1b[0m", ""), person.seen


def test_files_of_this_very_process_are_not_left_to_the_daemon(folder: Path) -> None:
    wait_until_warm(folder)
    person = Person(folder, "run", "times", "--b", "@/dev/stdin")
    person.type(b"hi\n\x04\x04")
    assert person.end() == 0
    assert "68690a" in person.seen
