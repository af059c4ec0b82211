"""`start JOB --each`: what counts as an input, and what is said of those that are wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from taskrun.cli.exit_codes import Code
from taskrun.model.errors import InputInvalid
from tests.cli.fakes import JOB, SCHEMA, FakeDaemon, FakeTerminal, a_run, typed

RUN = a_run(job="each")
PROPERTIES: dict[str, Any] = {**JOB["input_schema"]["properties"], "path": {"type": "string", "format": "path"}}  # type: ignore[index]


def daemon(properties: dict[str, Any] = PROPERTIES, **answers: Any) -> FakeDaemon:
    job = {**JOB, "input_schema": {**SCHEMA, "properties": properties}}
    return FakeDaemon(
        jobs={"jobs": [job], "pipes": [], "problems": []}, **({"start": {"run": RUN, "created": True}} | answers)
    )


async def sent(terminal: FakeTerminal, *args: str, **answers: Any) -> list[Any]:
    """Returns the inputs that a command line sends."""
    to = daemon(**answers)
    assert await typed(["start", "processFile", *args], terminal, to) == Code.DONE, terminal.chatter
    return [json.loads(bytes(one)) for one in to.params("start")["each"]["inputs"]]


async def refused(terminal: FakeTerminal, *args: str) -> str:
    """Returns what is said of a command line that records nothing."""
    to = daemon()
    assert await typed(["start", "processFile", *args], terminal, to) == Code.USAGE
    assert "start" not in [op for op, _ in to.asked]
    return terminal.chatter


@pytest.fixture
def files(project: Path) -> Path:
    (project / "in" / "deep").mkdir(parents=True)
    for name in ("b.mp3", "a.mp3", ".hidden.mp3", "c.txt", "-d.mp3", "deep/e.mp3", "song [1].mp3", "n\new.mp3"):
        (project / "in" / name).touch()
    Path(os.fsdecode(bytes(project / "in") + b"/caf\xe9.mp3")).touch()
    return project / "in"


async def test_files_that_match_are_passed_on_absolute_in_order(pipe: FakeTerminal, files: Path) -> None:
    found = await sent(pipe, "--each", "path=in/*.mp3", "--bitrate", "64")
    names = ["-d.mp3", "a.mp3", "b.mp3", "caf\U0010ffe9.mp3", "n\new.mp3", "song [1].mp3"]
    assert found == [{"path": f"{files}/{name}", "bitrate": 64} for name in names]


async def test_several_patterns_give_each_file_once(pipe: FakeTerminal, files: Path) -> None:
    found = await sent(pipe, "--each", "path=in/[ab].mp3", "--each", "path=in/a.*", "in/**/e.mp3", "in/song [1].mp3")
    assert [Path(one["path"]).name for one in found] == ["a.mp3", "b.mp3", "e.mp3", "song [1].mp3"]


async def test_rows_of_a_table(pipe: FakeTerminal, project: Path) -> None:
    table = 'path,bitrate,dry,key\nx.mp3,64,true,"a, ""b"""\n\ny.mp3,,,\n"two\nlines.mp3",1,no,é\n'
    (project / "rows.csv").write_text("\ufeff" + table)
    assert await sent(pipe, "--each", "@rows.csv") == [
        {"path": f"{project}/x.mp3", "bitrate": 64, "dry": True, "key": 'a, "b"'},
        {"path": f"{project}/y.mp3", "key": ""},
        {"path": f"{project}/two\nlines.mp3", "bitrate": 1, "dry": False, "key": "é"},
    ]


async def test_an_option_is_for_rows_that_leave_its_field_empty(pipe: FakeTerminal, project: Path) -> None:
    (project / "rows.tsv").write_text("path\tbitrate\nx\t64\ny\t\n")
    found = await sent(pipe, "--each", "@rows.tsv", "--bitrate", "32", "--input", '{"tags": ["t"]}')
    assert [(one["bitrate"], one["tags"]) for one in found] == [(64, ["t"]), (32, ["t"])]


async def test_lines_of_json_from_a_file_or_standard_input(project: Path) -> None:
    lines = '{"path": "/x", "bitrate": 1}\n\n{"path": "y"}\n'
    wanted = [{"path": "/x", "bitrate": 1, "dry": True}, {"path": f"{project}/y", "dry": True}]
    assert await sent(FakeTerminal(project, stdin=lines), "--each", "-", "--dry") == wanted
    assert await sent(FakeTerminal(project, stdin=f"\ufeff{lines}"), "--each", "-", "--dry") == wanted
    (project / "items.jsonl").write_text(lines)
    assert await sent(FakeTerminal(project), "--each", "@items.jsonl", "--dry") == wanted


async def test_its_limits_are_sent_along(pipe: FakeTerminal, files: Path) -> None:
    to = daemon()
    line = ["start", "processFile", "--each", "path=in/*.mp3", "--max", "3", "--fail-after", "2", "--key", "k"]
    assert await typed(line, pipe, to) == Code.DONE
    asked = to.params("start")
    assert (asked["each"]["max"], asked["each"]["fail_after"], asked["key"]) == (3, 2, "k")


async def test_the_options_give_way_to_fields_and_always_work_with_their_prefix(
    pipe: FakeTerminal, files: Path
) -> None:
    fields = {**PROPERTIES, "max": {"type": "integer", "default": 1}, "each": {"type": "string", "default": ""}}
    plain = daemon(fields)
    assert await typed(["start", "processFile", "--path", "p", "--each", "all", "--max", "7"], pipe, plain) == Code.DONE
    assert json.loads(plain.params("start")["input"]) == {"path": f"{files.parent}/p", "each": "all", "max": 7}
    both = daemon(fields)
    line = ["start", "processFile", "--run.each", "path=in/[ab].mp3", "--run.max", "2", "--max", "7", "--each", "all"]
    assert await typed(line, pipe, both) == Code.DONE
    asked = both.params("start")["each"]
    assert asked["max"] == 2
    assert [(one["max"], one["each"]) for one in map(json.loads, map(bytes, asked["inputs"]))] == [(7, "all")] * 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("path,bitrate\nx,64\ny,fast\nz,1.5\n", ["rows.csv line 3: --bitrate", "rows.csv line 4: --bitrate"]),
        ('path,bitrate\n"x\ny",64\nz,fast\n', ["rows.csv line 4: --bitrate"]),
        ("path,bitrat\nx,64\n", ["rows.csv line 1: the job has no field bitrat"]),
        ("path,path\nx,y\n", ["rows.csv line 1: the column path appears twice"]),
        ("path\nx,y\n", ["rows.csv line 2: 2 cells, but 1 column"]),
        ("bitrate\n64\n", ["rows.csv line 2: --path is required"]),
        ('path\n"x\n', ["rows.csv line 2: unexpected end of data"]),
        ("path\n", ["there are no inputs"]),
        ("path,bitrate\n" + "x,no\n" * 50, ['rows.csv line 2 and 49 others: --bitrate "no"']),
        ("path,bitrate\n" + "".join(f"x,a{at}\n" for at in range(50)), ["rows.csv line 21: ", "there are more"]),
    ],
)
async def test_a_wrong_table_is_told_by_line_and_field(
    pipe: FakeTerminal, project: Path, content: str, said: list[str]
) -> None:
    (project / "rows.csv").write_text(content)
    told = await refused(pipe, "--each", "@rows.csv")
    assert all(part in told for part in said), told


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--each", "path=no/*.mp3"], "no file in"),
        (["--each", "pth=in/*.mp3"], "the job has no field pth; it has path, bitrate"),
        (["--each", "@none.csv"], "--each @none.csv: No such file or directory"),
        (["--each", "in/*.mp3"], "none of FIELD=PATTERN, @FILE.csv"),
        (["--each"], "--each needs a value"),
        (["--each", "path=in/*.mp3", "--max", "0"], '--max "0" is not a number of 1 or more'),
        (["--each", "path=in/*.mp3", "--fail-after", "x"], '--fail-after "x" is not a number'),
        (["--path", "x", "--max", "3"], "--max goes with --each"),
        (["--path", "x", "y"], "unexpected argument y"),
        (["--each", "-", "y"], "y is no option"),
    ],
)
async def test_what_is_no_source_is_refused(pipe: FakeTerminal, files: Path, args: list[str], said: str) -> None:
    assert said in await refused(pipe, *args)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"path": "x"}\n{"path":\n', "standard input line 2: not valid JSON: Expecting value at column 9\n"),
        ('{"path": "x"}\n\n["x"]\n', "standard input line 3: not a JSON object"),
        ('{"path": "x"}\n{"bitrate": 3}\n', "standard input line 2: --path is required"),
        ('{"path": "x"}\n{"path": "caf\udce9"}\n', "standard input line 2: not valid UTF-8"),
    ],
)
async def test_wrong_json_is_told_by_line(project: Path, lines: str, said: str) -> None:
    assert said in await refused(FakeTerminal(project, stdin=lines), "--each", "-")


async def test_what_the_job_itself_refuses_is_told_by_line_too(project: Path) -> None:
    terminal = FakeTerminal(project, stdin='{"path": "x"}\n{"path": "y"}\n')
    fault = InputInvalid("processFile", [("[1].path", "is taken"), ("[1]", "is odd")])
    assert await typed(["start", "processFile", "--each", "-"], terminal, daemon(start=fault)) == Code.USAGE
    assert "standard input line 2: --path: is taken" in terminal.chatter
    assert "standard input line 2: is odd" in terminal.chatter


async def test_inputs_over_the_limit_together_are_refused(project: Path) -> None:
    (project / "taskrun.toml").write_text('[taskrun]\nmax_payload = "1KB"\n')
    terminal = FakeTerminal(project, stdin='{"path": "/%s"}\n' % ("x" * 300) * 4)
    assert await typed(["start", "processFile", "--each", "-"], terminal, daemon()) == Code.USAGE
    assert "the input of --each is too large" in terminal.chatter


async def test_a_local_run_takes_no_many_inputs(pipe: FakeTerminal, project: Path) -> None:
    (project / "jobs.py").write_text("from taskrun import job\n\n@job\nasync def here(path: str) -> None: ...\n")
    (project / "taskrun.toml").write_text('[taskrun]\njobs = ["jobs.py"]\n')
    assert await typed(["run", "here", "--local", "--each", "path=*.py"], pipe, daemon()) == Code.USAGE
    assert "--each has no meaning with it" in pipe.chatter


async def test_retry_of_what_failed_is_for_runs_of_many_inputs(pipe: FakeTerminal) -> None:
    to = FakeDaemon(find=RUN["id"], show={**a_run(), "steps": []}, retry=RUN)
    assert await typed(["retry", RUN["id"], "--failed"], pipe, to) == Code.USAGE
    assert "is for runs that --each started" in pipe.chatter
    to = FakeDaemon(find=RUN["id"], show={**RUN, "steps": []}, retry=RUN)
    assert await typed(["retry", RUN["id"], "--failed"], pipe, to) == Code.DONE
    assert to.params("retry") == {"run": RUN["id"], "step": None}
