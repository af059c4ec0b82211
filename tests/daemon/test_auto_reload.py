"""Job files that change while a daemon runs: loaded before the next run starts, unless they are broken or nobody wants that."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from taskrun.daemon.client import Client
from taskrun.daemon.watch import auto_reload
from taskrun.daemon.watch.auto_reload import AutoReload
from taskrun.model.errors import DaemonError
from tests.clients import ended
from tests.daemon.conftest import Project
from tests.waiting import until

JOB = """
from pathlib import Path
from taskrun import job, pipe, run
import asyncio

events = pipe("events")

async def until(path: str) -> int:
    with open(path + ".begun", "a") as file:
        file.write("x")
    while not Path(path).exists():
        await asyncio.sleep(0.01)
    return 1

@job
async def version() -> int:
    return VERSION

@job
async def long(path: str) -> int:
    await run("until", until, path)
    return VERSION

@job
async def parked() -> int:
    await events.wait_for()
    return VERSION
"""

OTHER = "from taskrun import job\n@job\nasync def other() -> int:\n    return VERSION\n"


def edit(project: Project, version: int, text: str = JOB) -> None:
    """Writes another version of the jobs, as an editor does."""
    project.write("jobs/new.tmp", f"VERSION = {version}\n{text}")
    (project.root / "jobs/new.tmp").replace(project.root / "jobs/versions.py")


def start(client: Client, job: str, **fields: Any) -> str:
    text = "{" + ", ".join(f'"{name}": "{value}"' for name, value in fields.items()) + "}"
    answer: dict[str, Any] = client.call("start", job=job, input=text)
    return str(answer["run"]["id"])


def output(client: Client, job: str, **fields: Any) -> Any:
    return ended(client, start(client, job, **fields))["output"]


def test_a_run_starts_with_the_code_as_it_is_on_the_disk(project: Project) -> None:
    edit(project, 1)
    with project.connect() as client:
        assert output(client, "version") == 1
        for version in (2, 3):
            edit(project, version)
            assert output(client, "version") == version
        project.write("jobs/more.py", "from taskrun import job\n@job\nasync def added() -> int:\n    return 7\n")
        assert output(client, "added") == 7


def test_a_configuration_that_is_wrong_holds_back_no_job_file(project: Project) -> None:
    edit(project, 1)
    with project.connect() as client:
        assert output(client, "version") == 1
        good = (project.root / "taskrun.toml").read_text()
        project.write("taskrun.toml", good + "[jobs.x]\ncomand = 1\n")
        for version in (2, 3):
            edit(project, version)
            assert output(client, "version") == version
        assert "unknown key comand" in client.call("config")["problem"]
        project.write("taskrun.toml", good + "[jobs.x]\ncommand = 'echo 4'\n")
        assert output(client, "x") == "4"


def test_a_broken_file_keeps_its_last_good_version_and_is_named(project: Project) -> None:
    edit(project, 1)
    with project.connect() as client:
        assert output(client, "version") == 1
        edit(project, 2, JOB + "\ndef broken(:\n")
        (problem,) = client.call("jobs")["problems"]
        assert (problem["kept"], Path(problem["file"]).name) == (True, "versions.py")
        assert output(client, "version") == 1
        edit(project, 3)
        assert client.call("jobs")["problems"] == []
        assert output(client, "version") == 3


def test_a_broken_file_does_not_hold_back_the_others(project: Project) -> None:
    edit(project, 1)
    project.write("jobs/other.py", OTHER.replace("VERSION", "1"))
    with project.connect() as client:
        assert output(client, "other") == 1
        edit(project, 2, JOB + "\ndef broken(:\n")
        for version in (2, 3):
            project.write("jobs/other.py", OTHER.replace("VERSION", str(version)))
            assert (output(client, "other"), output(client, "version")) == (version, 1)
        project.write("jobs/never.py", "1 / 0\n")
        project.write("jobs/other.py", OTHER.replace("VERSION", "4"))
        assert output(client, "other") == 4
        assert sorted(one["kept"] for one in client.call("jobs")["problems"]) == [False, True]


def test_the_last_good_version_outlives_worker_and_daemon(project: Project) -> None:
    edit(project, 1)
    project.write("jobs/other.py", OTHER.replace("VERSION", "1"))
    with project.connect() as client:
        assert output(client, "version") == 1
        edit(project, 2, "\nraise ValueError\n")
        crashed = start(client, "crash_once", marker=project.root / "marker")
        assert ended(client, crashed)["output"] == "x"
        assert output(client, "version") == 1
    project.kill()
    project.write("jobs/other.py", OTHER.replace("VERSION", "2"))
    with project.connect() as client:
        assert (output(client, "other"), output(client, "version")) == (2, 1)
        assert (project.root / ".taskrun/last-good.json").stat().st_mode & 0o777 == 0o600


def test_code_that_fits_nothing_that_was_there_changes_nothing_until_it_is_fixed(project: Project) -> None:
    edit(project, 1, "from aid import VERSION as AID\n" + JOB)
    project.write("jobs/aid.py", "VERSION = 1\n")
    project.write("jobs/other.py", OTHER.replace("VERSION", "1"))
    with project.connect() as client:
        assert output(client, "other") == 1
        project.write("jobs/aid.py", "ANOTHER = 1\n")
        project.write("jobs/other.py", OTHER.replace("VERSION", "2"))
        assert (output(client, "other"), output(client, "version")) == (1, 1)
        (problem,) = client.call("jobs")["problems"]
        assert (problem["holding"], problem["file"]) == (True, "jobs/versions.py")
        project.write("jobs/aid.py", "VERSION = 3\n")
        assert (output(client, "other"), client.call("jobs")["problems"]) == (2, [])


def test_no_step_is_cut_off_for_new_code(project: Project, tmp_path: Path) -> None:
    edit(project, 1)
    go = tmp_path / "go"
    with project.connect() as client:
        long = start(client, "long", path=go)
        until(Path(f"{go}.begun").exists)
        edit(project, 2)
        assert output(client, "version") == 2
        go.touch()
        assert ended(client, long)["output"] == 1
        assert Path(f"{go}.begun").read_text() == "x"


def test_runs_that_wait_go_on_with_the_new_code(project: Project) -> None:
    edit(project, 1)
    with project.connect() as client:
        waiting = start(client, "parked")
        until(lambda: client.call("show", run=waiting)["status"] == "waiting")
        (old,) = project.root.glob(".taskrun/worker-*.lock")
        edit(project, 2)
        assert output(client, "version") == 2
        until(lambda: not old.exists())
        client.call("send", pipe="events")
        assert ended(client, waiting)["output"] == 2


def test_new_code_is_loaded_though_nobody_asks(project: Project) -> None:
    edit(project, 1)
    with project.connect() as client:
        client.call("jobs")
        project.write("jobs/more.py", "from taskrun import job\n@job\nasync def added() -> int:\n    return 7\n")
        until(lambda: client.call("status")["jobs"] == 10)


@pytest.mark.parametrize("setting", ["manual"])
def test_nothing_is_loaded_where_the_user_does_that(project: Project, setting: str) -> None:
    toml = project.root / "taskrun.toml"
    toml.write_text(toml.read_text() + f'reload = "{setting}"\n')
    edit(project, 1)
    with project.connect() as client:
        assert output(client, "version") == 1
        edit(project, 2)
        assert output(client, "version") == 1
        client.call("reload")
        assert output(client, "version") == 2


class Code:
    """Code that changes once, and takes until `loaded` to be loaded."""

    def __init__(self) -> None:
        self.looks, self.loads = 0, 0
        self.looking, self.loaded = asyncio.Event(), asyncio.Event()
        self.sources = SimpleNamespace(look_took=0.0)

    async def begin(self) -> None: ...

    async def look(self) -> list[dict[str, Any]]:
        self.looks += 1
        if self.looks > 1:
            return []
        self.looking.set()
        await self.loaded.wait()
        self.loads += 1
        return [{"kind": "kept", "lost": True, "problems": [{"file": "a.py", "line": 1, "text": "broken"}]}]


async def test_a_client_that_goes_away_does_not_stop_the_loading() -> None:
    code = Code()
    auto = AutoReload(cast(Any, code))
    asked = asyncio.ensure_future(auto.load_changes())
    await code.looking.wait()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    code.loaded.set()
    (problem,) = await auto.load_changes()
    assert (problem["holding"], code.loads) == (True, 1)


async def test_who_asks_hears_that_files_are_still_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    code = Code()
    auto = AutoReload(cast(Any, code))
    with monkeypatch.context() as patch:
        patch.setattr(auto_reload, "LOADED_WITHIN", 0.0)
        with pytest.raises(DaemonError, match="still being loaded"):
            await auto.load_changes()
    code.loaded.set()
    await auto.load_changes()
    assert code.loads == 1


async def test_nothing_is_loaded_any_more_once_the_daemon_stops() -> None:
    code = Code()
    async with AutoReload(cast(Any, code)).following():
        await code.looking.wait()
    code.loaded.set()
    await asyncio.sleep(0)
    assert code.loads == 0
