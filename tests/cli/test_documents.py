"""JSON that no single answer holds: it comes in pieces and reads as if it had come at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from taskrun.cli.app import execute
from taskrun.cli.backend.connect import ProcessConnector
from taskrun.cli.sanitize import to_json
from taskrun.engine.core.queries import views
from taskrun.model.records import Run, Status, Step, StepKind, StepStatus
from taskrun.stores.base import Tx
from taskrun.stores.sqlite import SqliteStorage
from tests.cli.fakes import FakeDaemon, FakeTerminal, a_run, a_step, shown, typed
from tests.cli.test_offline import run

LARGE = {"text": "ü\u202e\x9b" * 8_000, "list": [1, None]}
STEPS = 1_000


def fake(**answers: Any) -> FakeDaemon:
    """A daemon with one run whose output comes in two pieces."""
    text = json.dumps(LARGE, ensure_ascii=False)
    cut = {**a_run(status=Status.SUCCEEDED), "output": text[:10], "cut": ["output"]}

    def piece(start: int, **_: Any) -> str:
        return text[:9] if start == 0 else text[9:] if start == 9 else ""

    return FakeDaemon(find="7k3fq2aaaaaa", show=shown(cut, [a_step("a")], **answers), piece=piece, runs=[cut])


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("utf8", [False, True])
@pytest.mark.parametrize("line", ["show @last --json", "list --json"])
async def test_a_large_value_is_printed_whole_and_steers_no_terminal(
    tmp_path: Path, line: str, utf8: bool, tty: bool
) -> None:
    (tmp_path / "taskrun.toml").touch()
    terminal = FakeTerminal(tmp_path, out_tty=tty, utf8=utf8)
    assert await typed(line, terminal, fake()) == 0
    found = json.loads(terminal.written)
    found = found if isinstance(found, dict) else found[0]
    assert found["output"] == LARGE
    assert "cut" not in found
    assert not {"\u202e", "\x9b"} & {*terminal.written}
    assert utf8 or terminal.written.isascii()
    assert terminal.written.count("\n") == 1 or tty


@pytest.mark.parametrize("tty", [False, True])
async def test_what_fits_is_printed_as_if_it_had_come_at_once(tmp_path: Path, tty: bool) -> None:
    (tmp_path / "taskrun.toml").touch()
    answer = shown(a_run(), [a_step("a"), a_step("b")], children=[])
    terminal = FakeTerminal(tmp_path, out_tty=tty)
    await typed("show @last --json", terminal, FakeDaemon(find="7k3fq2aaaaaa", show=answer))
    whole = {name: item for name, item in answer.items() if name != "steps_left_out"}
    assert terminal.written == to_json(whole, indent=2 if tty else None) + "\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose journal has one run with many steps and large values."""
    (tmp_path / "taskrun.toml").write_text('[taskrun]\nmax_payload = "64MB"\n')
    (tmp_path / "jobs").mkdir()
    (tmp_path / ".taskrun").mkdir(0o700)
    store = SqliteStorage(tmp_path / ".taskrun" / "journal.db", exclusive=True)
    store.open()
    store.apply([fill])
    store.close()
    return tmp_path


def fill(tx: Tx) -> None:
    ended: dict[str, Any] = {"status": Status.SUCCEEDED, "started_at": 1.9e9, "ended_at": 1.9e9 + 1}
    tx.add_run(Run(id="aaaabbbbcccc", job="j", created_at=1.9e9, output=f'"{"é" * 5_000_000}"', **ended))
    for n in range(STEPS):
        output = f'"{"y" * 30_000}"' if n % 100 == 0 else "1"
        named: dict[str, Any] = {
            "run": "aaaabbbbcccc",
            "key": f"s#{n}",
            "name": "s",
            "kind": StepKind.RUN,
            "output": output,
        }
        tx.put_step(Step(**named, status=StepStatus.SUCCEEDED, started_at=1.9e9, ended_at=1.9e9 + 1))
    for n in range(3):
        tx.add_run(Run(id=f"child{n}zzzzzz", job="c", created_at=1.9e9, parent="aaaabbbbcccc", **ended))


def seen(folder: Path, *line: str) -> Any:
    return json.loads(run(folder, *line).stdout)


def test_a_run_with_many_steps_and_large_values_is_the_same_with_and_without_a_daemon(project: Path) -> None:
    without = [seen(project, *line) for line in (("show", "aaaa", "--json"), ("export", "aaaa"), ("list", "--json"))]
    run(project, "daemon", "start")
    try:
        within = [seen(project, *line) for line in (("show", "aaaa", "--json"), ("export", "aaaa"), ("list", "--json"))]
        ended = seen(project, "wait", "aaaa", "--json")
    finally:
        run(project, "daemon", "stop")
    assert without == within
    found = within[0]
    assert [step["key"] for step in found["steps"]] == [f"s#{n}" for n in range(STEPS)]
    assert [len(str(step["output"])) for step in found["steps"][99:102]] == [1, 30_000, 1]
    assert found["output"] == ended["output"] == "é" * 5_000_000
    assert [child["id"] for child in found["children"]] == [f"child{n}zzzzzz" for n in range(3)]


async def test_a_screen_shows_the_newest_steps_and_counts_the_others(project: Path) -> None:
    terminal = FakeTerminal(project, out_tty=True, env={"HOME": str(project)})
    assert await execute(["show", "aaaa"], terminal, ProcessConnector()) == 0
    assert f"… {STEPS - views.PAGE} earlier steps" in terminal.written
    assert "more than 20,000 characters" in terminal.written
    shown = terminal.written.count("  s#")
    assert 0 < shown <= 40
    assert f"… {views.PAGE - shown} more" in terminal.written
