"""The daemon with real workers: it answers whatever the handlers do, and what it acknowledged is done."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from taskrun.daemon.client import Disconnected
from taskrun.daemon.command_protocol import new_intent
from taskrun.daemon.launch import stop_daemon
from taskrun.model.errors import DaemonError, InputInvalid, JobNotFound, RunNotFound
from tests.clients import ended, start
from tests.waiting import until

from .conftest import Project, processes


def workers(project: Project) -> list[int]:
    return [pid for pid in processes(project.root) if b"daemon.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_run_is_started_followed_and_shown(shared: Project) -> None:
    with shared.connect() as client:
        run = start(client, "hello", name="Ada")
        assert client.call("find", ref=run[:6]) == run
        items = list(client.stream("tail", runs=[run]))
        assert [item.get("text") for item in items[:-1]] == ["hello Ada"]
        assert items[-1]["kind"] == "end"
        assert items[-1]["run"]["output"] == "hello Ada"
        assert client.call("show", run=run)["status"] == "succeeded"
        assert [one["id"] for one in client.call("runs", limit=1)] == [run]
        assert [line["text"] for line in client.call("logs", run=run)] == ["hello Ada"]


def test_what_is_wrong_is_said_and_nothing_recorded(shared: Project) -> None:
    with shared.connect() as client:
        before = client.call("runs")
        with pytest.raises(InputInvalid, match="nme"):
            start(client, "hello", nme="Ada")
        with pytest.raises(JobNotFound, match="helo"):
            start(client, "helo")
        with pytest.raises(RunNotFound):
            client.call("show", run="nothing")
        with pytest.raises(DaemonError, match="did you mean start"):
            client.call("strat")
        with pytest.raises(DaemonError, match="bad request"):
            client.call("start", job=7)
        assert client.call("runs") == before


def test_a_repeated_request_finds_the_run_that_it_made(project: Project) -> None:
    intent = new_intent()
    with project.connect() as client:
        first = client.call("start", job="hello", intent=intent)
    project.kill()
    with project.connect() as client:
        again = client.call("start", job="hello", intent=intent)
        assert (again["run"]["id"], again["created"]) == (first["run"]["id"], False)
        assert len(client.call("runs")) == 1


def test_it_answers_while_a_handler_blocks_its_worker(shared: Project, tmp_path: Path) -> None:
    free = tmp_path / "free"
    with shared.connect() as client:
        blocked = start(client, "block", until=str(free))
        until(lambda: client.call("show", run=blocked)["status"] == "running")
        with pytest.raises(InputInvalid):
            start(client, "hello", nme="Ada")
        queued = start(client, "hello", name="Ada")
        assert [job["name"] for job in client.call("jobs")["jobs"]]
        assert [run["id"] for run in client.call("runs", limit=2)] == [queued, blocked]
        free.touch()
        assert ended(client, blocked)["output"] == "free"
        assert ended(client, queued)["output"] == "hello Ada"


def test_a_worker_that_dies_is_replaced_and_no_finished_step_runs_again(project: Project, tmp_path: Path) -> None:
    with project.connect() as client:
        run = start(client, "crash_once", marker=str(tmp_path / "marker"))
        assert ended(client, run)["output"] == "x"
        assert client.call("show", run=run)["attempt"] == 1
        other = start(client, "hello")
        assert ended(client, other)["status"] == "succeeded"


def test_a_worker_that_is_killed_takes_its_commands_along(project: Project, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with project.connect() as client:
        run = start(client, "orphan", pid=str(pid))
        first = int(until(lambda: pid.exists() and pid.read_text()))
        pid.unlink()
        (worker,) = workers(project)
        os.kill(worker, signal.SIGKILL)
        until(lambda: pid.exists() and pid.read_text())
        assert not Path(f"/proc/{first}").exists()
        client.call("cancel", run=run)
        assert ended(client, run)["status"] == "cancelled"


def test_killed_it_leaves_no_process_and_its_runs_go_on(project: Project, tmp_path: Path) -> None:
    pid, seen = tmp_path / "pid", tmp_path / "seen"
    with project.connect() as client:
        waiting = start(client, "wait_for", path=str(seen))
        start(client, "orphan", pid=str(pid))
        until(lambda: pid.exists() and pid.read_text())
    project.kill()
    until(lambda: not processes(project.root), 5)
    seen.touch()
    with project.connect() as client:
        assert ended(client, waiting)["output"] == "seen"


def test_a_worker_that_hears_nothing_dies_with_the_daemon(project: Project, tmp_path: Path) -> None:
    with project.connect() as client:
        run = start(client, "block", until=str(tmp_path / "never"))
        until(lambda: client.call("show", run=run)["status"] == "running")
    project.kill()
    until(lambda: not processes(project.root), 5)


def test_the_log_has_neither_gap_nor_repeat_over_a_restart(project: Project) -> None:
    seen: list[str] = []
    after = 0
    with project.connect() as client:
        run = start(client, "count", to=60, pause=0.01)
    restarts = 3
    while True:
        try:
            with project.connect() as client:
                for item in client.stream("tail", runs=[run], after={run: after}):
                    if item["kind"] == "end":
                        assert item["run"]["output"] == 60
                        assert seen == [f"line {number}" for number in range(60)]
                        return
                    after = item["seq"]
                    seen.append(item["text"])
                    if restarts and len(seen) % 15 == 0:
                        restarts -= 1
                        project.kill()
        except Disconnected:
            continue


def test_the_last_lines_are_those_that_were_asked_for(shared: Project) -> None:
    with shared.connect() as client:
        run = start(client, "count", to=10)
        ended(client, run)
        items = list(client.stream("tail", runs=[run], limit=2))
        assert [item.get("text") for item in items] == ["line 8", "line 9", None]


def test_watching_shows_what_is_and_then_what_changes(project: Project) -> None:
    with project.connect() as client, project.connect() as other:
        before = start(client, "hello")
        ended(client, before)
        changes = other.stream("watch")
        first = [next(changes), next(changes)]
        assert [item["kind"] for item in first] == ["run", "ready"]
        run = start(client, "count", to=2)
        seen = []
        for item in changes:
            seen.append(item)
            if item["kind"] == "run" and item["run"]["status"] == "succeeded":
                break
        assert {item["run"]["id"] for item in seen if item["kind"] == "run"} == {run}
        assert [
            item["step"]["key"] for item in seen if item["kind"] == "step" and item["step"]["status"] == "succeeded"
        ]


def test_waiting_yields_each_run_as_it_ends(shared: Project, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with shared.connect() as client:
        late, early = start(client, "wait_for", path=str(seen)), start(client, "hello")
        ends = client.stream("wait", runs=[late, early])
        assert next(ends)["id"] == early
        seen.touch()
        assert next(ends)["id"] == late
        assert list(ends) == []


def test_waiting_yields_a_run_that_is_paused_too_where_that_is_wanted(shared: Project) -> None:
    with shared.connect() as client, shared.connect() as other:
        run = client.call("start", job="hello", input="{}", delay=3600)["run"]["id"]
        states = client.stream("wait", runs=[run], paused=True)
        other.call("pause", run=run)
        assert next(states)["status"] == "paused"
        other.call("cancel", run=run)
        assert [state["status"] for state in states] == ["cancelled"]


def test_stopped_it_lets_what_is_under_way_end_and_keeps_the_rest(project: Project, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with project.connect() as client:
        short, long = start(client, "count", to=3, pause=0.1), start(client, "wait_for", path=str(seen))
        until(lambda: client.call("show", run=long)["status"] == "running")
        assert client.call("stop")["pid"] == client.daemon.pid
        with pytest.raises(DaemonError, match="was stopped"):
            client.call("status")
    until(lambda: not processes(project.root))
    seen.touch()
    with project.connect() as client:
        assert ended(client, short)["status"] == ended(client, long)["status"] == "succeeded"


def test_a_worker_that_hears_nothing_does_not_keep_it_from_stopping(project: Project, tmp_path: Path) -> None:
    with project.connect() as client:
        run = start(client, "block", until=str(tmp_path / "never"))
        until(lambda: client.call("show", run=run)["status"] == "running")
    assert stop_daemon(project.config)
    until(lambda: not processes(project.root), 5)


def test_a_broken_job_file_is_named_while_the_others_work(project: Project) -> None:
    project.write("jobs/broken.py", "from taskrun import job\n\ndef oops(:\n")
    with project.connect() as client:
        (problem,) = client.call("jobs")["problems"]
        assert problem["file"].endswith("broken.py")
        assert problem["line"] == 3
        assert client.call("status")["problems"] == [problem]
        assert ended(client, start(client, "hello"))["status"] == "succeeded"


def test_job_files_that_kill_their_worker_are_no_end(project: Project) -> None:
    path = project.write("jobs/deadly.py", "import os\nos._exit(7)\n")
    with project.connect() as client:
        text = until(lambda: [problem["text"] for problem in client.call("status")["problems"]])[0]
        assert "exit code 7" in text
        path.unlink()
        assert ended(client, start(client, "hello"))["status"] == "succeeded"


def test_new_code_takes_over_and_runs_go_on_with_it(project: Project, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with project.connect() as client:
        under_way = start(client, "wait_for", path=str(seen))
        until(lambda: client.call("show", run=under_way)["status"] == "running")
        old = workers(project)
        project.write("jobs/more.py", "from taskrun import job\n\n@job\nasync def more() -> str:\n    return 'more'\n")
        answer = client.call("reload")
        assert (answer["reloaded"], answer["added"], answer["removed"]) == (True, ["more"], [])
        assert not set(old) & set(workers(project))
        assert ended(client, start(client, "more"))["output"] == "more"
        seen.touch()
        assert ended(client, under_way)["output"] == "seen"


def test_newly_broken_code_does_not_take_over(project: Project) -> None:
    with project.connect() as client:
        start(client, "hello")
        project.write("jobs/all.py", "def oops(:\n")
        answer = client.call("reload")
        assert answer["reloaded"] is False
        assert answer["problems"][0]["file"].endswith("all.py")
        assert ended(client, start(client, "hello"))["status"] == "succeeded"


def test_what_job_files_print_is_in_the_daemons_log(project: Project) -> None:
    project.write("jobs/chatty.py", "print('chatter')\n")
    with project.connect() as client:
        client.call("jobs")
        until(lambda: "chatter" in (project.root / ".taskrun" / "daemon.log").read_text())


def test_workers_have_the_environment_of_the_configuration(project: Project) -> None:
    project.write("taskrun.toml", '[env]\nGREETING = "ahoy"\n')
    project.write(
        "jobs/greet.py",
        "import os\nfrom taskrun import job\nWORD = os.environ['GREETING']\n\n@job\nasync def greet() -> str:\n    return WORD\n",
    )
    with project.connect() as client:
        assert ended(client, start(client, "greet"))["output"] == "ahoy"


def test_a_terminals_interrupt_does_not_reach_it_or_its_workers(project: Project) -> None:
    with project.connect() as client:
        client.call("jobs")
        sessions = {os.getsid(pid) for pid in (*workers(project), project.pid())}
        assert os.getsid(0) not in sessions
        for worker in workers(project):
            os.kill(worker, signal.SIGINT)
            os.kill(worker, signal.SIGTERM)
        assert ended(client, start(client, "hello"))["status"] == "succeeded"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_gets_no_answer(project: Project, runtime: Path) -> None:
    with project.connect() as client:
        path = client._connection.getpeername()
        runtime.chmod(0o755)
        Path(path).parent.chmod(0o755)
        Path(path).chmod(0o777)
        code = (
            f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({path!r}); s.send(b'x'); print(s.recv(100))"
        )
        other = subprocess.run(
            ["/usr/bin/python3", "-c", code], user=65534, group=65534, extra_groups=[], capture_output=True, text=True
        )
        Path(path).parent.chmod(0o700)
        assert other.stdout.strip() == "b''" or "Reset" in other.stderr or "Broken" in other.stderr
        assert client.call("status")["running"]


def test_locks_that_dead_workers_of_any_version_have_left_are_removed(project: Project) -> None:
    left = [project.write(f".taskrun/worker-0a.{end}", "") for end in ("lock", "leash")]
    with project.connect():
        assert not any(path.exists() for path in left)
