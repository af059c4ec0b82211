"""Broken projects: the file, and the line, are named; what is not broken works."""

from __future__ import annotations

import os
import shutil

import pytest

from .conftest import HELLO, TOML, Outcome, Project, all_in

BROKEN: dict[str, tuple[str | bytes, int | None]] = {
    "syntax": ("from taskrun import job\n\ndef oops(:\n", 3),
    "import": ("import os\nimport no_such_module\n", 2),
    "raise": ("x = 1\n\nraise ValueError('at import')\n", 3),
    "exit": ("import sys\nsys.exit(3)\n", 2),
    "null": ("x = 1\n\0\n", None),
    "bytes": (b"x = '\xff\xfe'\n", 1),
    "option": ("from taskrun import job\n\n@job(retires=3)\nasync def misspelt() -> None: ...\n", 3),
    "twice": ("from taskrun import job\n\n@job(name='hello')\nasync def again() -> None: ...\n", 3),
}


def test_broken_job_files_are_named_with_their_lines_while_the_others_work(project: Project) -> None:
    for name, (text, _) in BROKEN.items():
        path = project.write(f"jobs/broken_{name}.py", "")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    outcome = project.cli("run", "hello", "--name", "Ada")
    assert (outcome.code, outcome.out) == (0, "hello Ada\n"), outcome.err
    said = project.cli("jobs")
    text = said.out + said.err
    for name, (_, line) in BROKEN.items():
        place = f"jobs/broken_{name}.py" + (f":{line}" if line else "")
        assert place in text, (place, text)
    assert "jobs/all.py:5" in text  # the other one of the two of a name
    assert all_in(text, ["did you mean", "retry"])
    outcome = project.cli("start", "misspelt")
    assert outcome.code == 3
    assert "broken_option.py:3" in outcome.err


def test_a_job_file_that_prints_at_import_spoils_no_output(project: Project) -> None:
    project.write(
        "jobs/loud.py", "import sys, os\nprint('loud')\nprint('loud', file=sys.stderr)\nos.write(1, b'loud')\n"
    )
    outcome = project.cli("run", "hello", "--name", "Ada")
    assert (outcome.code, outcome.out) == (0, "hello Ada\n")
    assert "loud" not in outcome.err
    assert (
        "loud" in project.cli("daemon", "logs", "--no-follow").out + (project.root / ".taskrun/daemon.log").read_text()
    )


def test_without_a_project_the_next_command_is_named(bare: Project) -> None:
    for args in (["list"], ["start", "hello"], ["daemon", "start"], ["jobs"]):
        outcome = bare.cli(*args)
        assert (outcome.code, outcome.out) == (2, ""), outcome
        assert all_in(outcome.err, ["taskrun.toml", "taskrun init"])
    assert list(bare.root.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[taskrun]\njbos = ["jobs"]\n', ["jbos", "did you mean", "jobs"]),
        ('[tskrun]\njobs = ["jobs"]\n', ["tskrun", "did you mean", "taskrun"]),
        ("[taskrun]\nconcurrency = 'many'\n", ["concurrency", "many"]),
        ("[taskrun]\nconcurrency = true\n", ["concurrency"]),
        ("[taskrun]\nconcurrency = 0\n", ["concurrency"]),
        ('[taskrun]\njobs = "jobs"\n', ["jobs"]),
        ("[taskrun]\ngrace = -1\n", ["grace"]),
        ('[taskrun]\ngrace = "5 parsecs"\n', ["grace", "parsecs"]),
        ("[taskrun]\nmax_payload = nan\n", ["max_payload"]),
        ("taskrun = 3\n", ["taskrun"]),
        ("[env]\nA = 1\n", ["A"]),
        ("[taskrun\n", ["taskrun.toml", "line 1"]),
        ("\ufeff\x00", ["taskrun.toml"]),
    ],
    ids=lambda given: str(given)[:30],
)
def test_a_bad_configuration_is_exit_code_2_and_says_what_helps(project: Project, text: str, said: list[str]) -> None:
    project.write("taskrun.toml", text)
    outcome = project.cli("start", "hello")
    assert (outcome.code, outcome.out) == (2, ""), outcome
    assert all_in(outcome.err, said), outcome.err
    assert not project.processes()
    project.write("taskrun.toml", TOML)


def test_a_configuration_that_is_not_there_or_no_file(project: Project) -> None:
    for named in ("/nowhere/taskrun.toml", str(project.root / "jobs" / "all.py")):
        outcome = project.cli("list", "--config", named)
        assert outcome.code == 2
        assert named in outcome.err


def test_a_project_that_breaks_while_its_daemon_runs_is_said(project: Project) -> None:
    assert project.cli("run", "hello").code == 0
    project.write("taskrun.toml", "[taskrun]\nnonsense = 1\n")
    outcome = project.cli("start", "hello")
    assert outcome.code == 0, outcome  # with what it was
    assert "nonsense" in outcome.err
    assert project.cli("daemon", "stop").code == 0
    outcome = project.cli("start", "hello")
    assert outcome.code == 2
    assert "nonsense" in outcome.err
    project.write("taskrun.toml", TOML)
    assert project.cli("run", "hello").code == 0


def test_a_folder_that_cannot_be_written_is_said(project: Project) -> None:
    project.root.chmod(0o555)
    for args in (["start", "hello"], ["daemon", "start"], ["list"], ["jobs"], ["daemon", "status"], ["daemon", "stop"]):
        outcome = mortal(project, *args)
        assert "Traceback" not in outcome.err, outcome.err
        assert outcome.code in ((0, 3) if args[-1] in ("list", "jobs", "status", "stop") else (4,)), (args, outcome)
        if outcome.code == 4:
            assert all_in(outcome.err, [".taskrun", "ermission denied"]), outcome.err
    project.root.chmod(0o755)
    assert mortal(project, "run", "hello").code == 0


def test_a_journal_that_cannot_be_written_is_said(project: Project) -> None:
    assert project.cli("run", "hello").code == 0
    assert project.cli("daemon", "stop").code == 0
    (project.root / ".taskrun").chmod(0o500)
    outcome = mortal(project, "start", "hello")
    assert outcome.code == 4, outcome
    assert all_in(outcome.err, [".taskrun", "cannot be written to"]), outcome.err
    assert "Traceback" not in outcome.err
    (project.root / ".taskrun").chmod(0o700)
    project.journal.chmod(0o000)
    for args in (["start", "hello"], ["list"]):
        outcome = mortal(project, *args)
        assert outcome.code == 4, outcome
        assert "journal" in outcome.err
        assert "Traceback" not in outcome.err
    project.journal.chmod(0o600)
    assert mortal(project, "run", "hello").code == 0


def mortal(project: Project, *args: str) -> Outcome:
    """Runs a command as somebody whom permissions concern: root without the right to pass over them."""
    if os.geteuid() != 0:
        return project.cli(*args)
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, or not to be root")
    return project.cli(*args, before=["setpriv", "--bounding-set=-dac_override,-dac_read_search"])


def test_what_the_daemon_keeps_is_for_its_user_alone(project: Project) -> None:
    assert project.cli("run", "hello", umask=0).code == 0
    kept = [project.root / ".taskrun", *(project.root / ".taskrun").iterdir()]
    assert [(path.name, oct(path.stat().st_mode)) for path in kept if path.stat().st_mode & 0o077] == []


def test_a_deep_and_odd_path_works(bare: Project) -> None:
    bare.root = bare.root / ("deep " * 20) / "ünï 'code' \"q\"" / ("x" * 100)
    bare.root.mkdir(parents=True)
    bare.write("taskrun.toml", TOML)
    bare.jobs(HELLO)
    outcome = bare.cli("run", "hello", "--name", "Ada")
    assert (outcome.code, outcome.out) == (0, "hello Ada\n"), outcome.err


def test_the_folder_of_a_running_daemon_may_go(project: Project) -> None:
    assert project.cli("run", "hello").code == 0
    (project.root / ".taskrun").rename(project.root / "gone")
    outcome = project.cli("list")
    assert (outcome.code, outcome.out) == (0, "")
    outcome = project.cli("run", "hello")
    assert outcome.code in (0, 4), outcome
    assert "Traceback" not in outcome.err
