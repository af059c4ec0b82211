"""What commands ask for, print and end with."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from taskrun.cli.app import execute
from taskrun.cli.backend.connect import ProcessConnector
from taskrun.cli.exit_codes import Code
from taskrun.cli.sanitize import to_json
from taskrun.cli.session import Backend
from taskrun.engine.core.queries.views import step_view
from taskrun.model.codec import error_text
from taskrun.model.config import Config
from taskrun.model.errors import (
    AmbiguousRun,
    DaemonError,
    DaemonStopped,
    InputInvalid,
    JournalDamaged,
    RunEnded,
    RunNotEnded,
    RunNotFound,
)
from taskrun.model.records import ErrorRecord, Status, StepKind
from tests.cli.fakes import FOREVER, JOB, NOW, FakeDaemon, FakeGate, FakeTerminal, a_run, a_step, shown, typed

RUN = a_run()
DONE = a_run(status=Status.SUCCEEDED, started_at=NOW - 10, ended_at=NOW - 2, output='{"a":1}')
LOG = {
    "seq": 1,
    "at": "2027-01-15T08:00:00.000+00:00",
    "run": RUN["id"],
    "step": None,
    "stream": "stdout",
    "text": "hi",
}
WATCH = [{"kind": "run", "run": RUN}, {"kind": "ready"}]


def starting(run: dict[str, Any] = RUN, created: bool = True, **more: Any) -> FakeDaemon:
    told = [item for item in more.get("tail", ()) if item is not FOREVER]
    ended = [{"kind": "run", "run": item["run"]} for item in told if item["kind"] == "end"]
    return FakeDaemon(**{"start": {"run": run, "created": created}, "watch": WATCH + ended, "find": run["id"], **more})


def ending(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [LOG | {"kind": "log"}, {"kind": "end", "run": run}]


# ---- start


async def test_start_prints_the_id_alone_into_a_pipe(pipe: FakeTerminal) -> None:
    daemon = starting()
    assert await typed("start processFile --path song.mp3 --dry", pipe, daemon) == 0
    assert pipe.written == RUN["id"] + "\n"
    asked = daemon.params("start")
    assert asked["job"] == "processFile"
    assert json.loads(asked["input"]) == {"path": "song.mp3", "dry": True}
    assert asked["source"] == "cli"
    assert len(asked["intent"]) == 24


async def test_start_tells_a_person_what_to_type_next(screen: FakeTerminal) -> None:
    assert await typed("start processFile --path song.mp3", screen, starting()) == 0
    assert screen.written == ""
    assert "processFile  path=song.mp3" in screen.chatter
    assert "follow: taskrun tail 7k3fq2   cancel: taskrun cancel 7k3fq2" in screen.chatter


async def test_start_says_when_a_key_led_to_a_run_that_was_there(screen: FakeTerminal) -> None:
    daemon = starting(created=False)
    assert await typed("start processFile --path a --key K", screen, daemon) == 0
    assert daemon.params("start")["key"] == "K"
    assert "existed already" in screen.chatter


async def test_start_reports_all_input_errors_and_records_nothing(pipe: FakeTerminal) -> None:
    daemon = starting()
    assert await typed("start processFile --bitrate hi --pth x", pipe, daemon) == Code.USAGE
    assert pipe.chatter.splitlines() == [
        'error: --bitrate "hi" is not an integer',
        "error: there is no option --pth",
        "  did you mean  --path",
        "error: --path is required",
        "  usage: taskrun start processFile --path TEXT [--bitrate INTEGER] [--dry] [--tags TEXT …] [--input.key TEXT]",
    ]
    assert "start" not in [op for op, _ in daemon.asked]


async def test_start_of_an_unknown_job_says_which_was_meant(pipe: FakeTerminal) -> None:
    meant = 'error: no job "procesFile"\n  did you mean  processFile\n'
    assert await typed("start procesFile", pipe, starting()) == Code.NOT_FOUND
    assert pipe.chatter == meant
    pipe.chatter = ""
    (pipe.facts.cwd / "taskrun.toml").write_text('[taskrun]\nreload = "manual"\n')
    assert await typed("start procesFile", pipe, starting()) == Code.NOT_FOUND
    assert pipe.chatter == f"{meant}  just written? load it: taskrun daemon restart\n"


async def test_a_discarded_trigger_prints_its_run_and_exits_5(pipe: FakeTerminal) -> None:
    run = a_run(status=Status.DISCARDED, reason="throttle")
    assert await typed("start processFile --path a", pipe, starting(run)) == Code.REFUSED
    assert pipe.written == run["id"] + "\n"


@pytest.mark.parametrize("source", ['{"path": "a", "bitrate": 1}', "@in.json", "-"])
async def test_input_comes_as_json_from_a_file_or_from_standard_input(source: str, project: Path) -> None:
    (project / "in.json").write_text('{"path": "a", "bitrate": 1}')
    terminal = FakeTerminal(project, stdin='{"path": "a", "bitrate": 1}')
    daemon = starting()
    assert await typed(["start", "processFile", "--input", source, "--bitrate", "2"], terminal, daemon) == 0
    assert json.loads(daemon.params("start")["input"]) == {"path": "a", "bitrate": 2}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["start", "processFile", "--input", "{"], "--input is not valid JSON"),
        (["start", "processFile", "--input", '{"path": NaN}'], "NaN is not a JSON value"),
        (["start", "processFile", "--input", "@nowhere"], "--input @nowhere: No such file"),
        (["start", "processFile", "--path", "a", "--in", "5"], "--in"),
        (["start", "processFile", "--path", "a", "--at", "noon"], '--at "noon" is not a time'),
        (["start"], "name a job"),
        (["strat"], 'no command "strat"'),
        (["list", "--status", "odd"], '--status "odd" is not one of scheduled'),
        (["list", "--since", "1"], "--since"),
        (["list", "-n", "0"], "0"),
        (["list", "--odd"], "--odd"),
        (["cancel"], "name a run, or select runs"),
        (["cancel", "abcd", "--job", "x"], "not both"),
        (["--config"], "--config needs a file"),
        (["show"], "RUN"),
    ],
)
async def test_misuse_exits_2_and_says_why(command: list[str], message: str, pipe: FakeTerminal) -> None:
    assert await typed(command, pipe, starting()) == Code.USAGE
    assert message in pipe.chatter
    assert pipe.written == ""


@pytest.mark.parametrize("command", ["", "schedule --help", "daemon --help", "list --help", "tail --help"])
async def test_help_cuts_no_summary_and_names_no_internal_type(command: str, pipe: FakeTerminal) -> None:
    assert await typed(command, pipe, starting()) == 0
    told = pipe.written
    assert "Usage: taskrun" in told
    assert "..." not in told.replace("[ARGS]...", "").replace("[RUN]...", "")
    assert "range" not in told


async def test_a_misspelt_command_is_recognised(pipe: FakeTerminal) -> None:
    assert await typed("strat", pipe, starting()) == Code.USAGE
    assert "did you mean  taskrun start" in pipe.chatter


async def test_config_may_stand_anywhere(tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "taskrun.toml").write_text("")
    for command in ("--config else/taskrun.toml list", "list --config=else/taskrun.toml"):
        terminal = FakeTerminal(tmp_path)
        assert await typed(command, terminal, FakeDaemon(runs=[])) == 0, terminal.chatter
    missing = FakeTerminal(tmp_path)
    assert await typed("list", missing, FakeDaemon(runs=[])) == Code.USAGE
    assert "taskrun init" in missing.chatter


# ---- run


async def test_run_follows_on_standard_error_and_prints_the_output(pipe: FakeTerminal) -> None:
    daemon = starting(tail=ending(DONE))
    assert await typed("run processFile --path a", pipe, daemon) == 0
    assert pipe.written == '{"a": 1}\n'
    assert "hi\n" in pipe.chatter
    assert "✓ done  7k3fq2 processFile" in pipe.chatter


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (Status.SUCCEEDED, None, 0),
        (Status.FAILED, None, 1),
        (Status.FAILED, "timeout", 124),
        (Status.CANCELLED, "explicit", 130),
        (Status.DISCARDED, "throttle", 5),
    ],
)
@pytest.mark.parametrize("command", ["run processFile --path a", "start -f processFile --path a", "tail @last"])
async def test_commands_that_follow_one_run_end_with_its_code(
    command: str, status: Status, reason: str | None, code: int, pipe: FakeTerminal
) -> None:
    run = a_run(status=status, reason=reason, started_at=NOW, ended_at=NOW, output='"x"')
    assert await typed(command, pipe, starting(tail=ending(run))) == code


async def test_a_run_says_its_last_steps_before_its_end_though_they_come_later(pipe: FakeTerminal) -> None:
    later = [{"kind": "ready"}] * 20
    changes = [*WATCH, *later, stepping("fetch"), {"kind": "run", "run": DONE}]
    assert await typed("run processFile --path a", pipe, starting(tail=ending(DONE), watch=changes)) == 0
    assert [line.strip() for line in pipe.chatter.splitlines()[1:]] == [
        "✓  fetch  10.0s",
        "hi",
        "✓ done  7k3fq2 processFile  8.0s",
    ]


FOLLOWED = ["run", "run -q", "run --json", "start -f", "start -q -f"]


@pytest.mark.parametrize("command", FOLLOWED)
async def test_a_run_that_is_held_says_what_lets_it_go_on(command: str, pipe: FakeTerminal) -> None:
    held = {"kind": "run", "run": a_run(status=Status.PAUSED, reason="exhausted")}
    changes = [*WATCH, held, stepping("fetch"), held, *WATCH, {"kind": "run", "run": DONE}]
    assert await typed(f"{command} processFile --path a", pipe, starting(tail=ending(DONE), watch=changes)) == 0
    assert pipe.chatter.count("‖ paused (retries used up)  7k3fq2 processFile\n") == 1
    assert pipe.chatter.count("go on: taskrun resume 7k3fq2") == 1


@pytest.mark.parametrize("command", FOLLOWED)
async def test_a_run_that_its_job_holds_from_the_start_says_that_the_job_is_to_be_resumed(
    command: str, pipe: FakeTerminal
) -> None:
    held = a_run(status=Status.PAUSED, reason="job")
    daemon = starting(held, tail=ending(DONE))
    assert await typed(f"{command} processFile --path a", pipe, daemon) == 0
    assert pipe.chatter.count("go on: taskrun resume processFile\n") == 1


async def test_a_quiet_run_says_in_a_line_that_it_failed_and_nothing_of_one_that_did_not(pipe: FakeTerminal) -> None:
    failed = a_run(status=Status.FAILED, error=error_text(ErrorRecord(type="ValueError", message="no luck")))
    assert await typed("run -q processFile --path a", pipe, starting(tail=ending(failed))) == 1
    assert [line for line in pipe.chatter.splitlines() if line.startswith("✗ failed")]
    assert "no luck" in pipe.chatter
    pipe.chatter = ""
    assert await typed("run -q processFile --path a", pipe, starting(tail=ending(DONE))) == 0
    assert pipe.chatter == ""


@pytest.mark.parametrize(("job", "again"), [("each", "retry 7k3fq2 --failed\n"), ("processFile", "retry 7k3fq2\n")])
async def test_a_failed_run_says_how_it_is_tried_again(job: str, again: str, pipe: FakeTerminal) -> None:
    failed = a_run(status=Status.FAILED, job=job, input="{}")
    assert await typed("run processFile --path a", pipe, starting(tail=ending(failed))) == 1
    assert f"try again: taskrun {again}" in pipe.chatter


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (RunNotEnded("run 499gupbq57cv is running; cancel it first, or wait for its end"), "taskrun cancel 499gup"),
        (RunEnded("run 499gupbq57cv has ended already"), "taskrun retry 499gup"),
        (RunNotFound('no run "nosuch"'), "taskrun list --all"),
    ],
)
async def test_a_hint_names_the_run_that_an_error_is_about(error: Exception, hint: str, pipe: FakeTerminal) -> None:
    assert await typed("retry @last", pipe, FakeDaemon(find=RUN["id"], show=shown(DONE), retry=error)) > 0
    assert pipe.chatter.splitlines()[-1].endswith(f": {hint}")


async def test_a_log_without_lines_says_so_and_without_a_run_it_is_that_of_the_newest(pipe: FakeTerminal) -> None:
    daemon = FakeDaemon(runs=[], find=RUN["id"], logs=lambda after=0, **_: [] if after > 0 else [LOG])
    assert await typed("tail --no-follow", pipe, daemon) == 0
    assert (pipe.written, daemon.params("find"), pipe.chatter) == ("hi\n", {"ref": "@last"}, "")
    assert await typed("tail --no-follow", pipe, FakeDaemon(runs=[], find=RUN["id"], logs=[])) == 0
    assert pipe.chatter == "7k3fq2 has no lines to show: taskrun show 7k3fq2\n"
    pipe.chatter = ""
    assert await typed("tail --no-follow", pipe, FakeDaemon(runs=[], find=RunNotFound("none"), logs=[])) == 0
    assert pipe.chatter == ""


HELD = a_run(status=Status.PAUSED, reason="exhausted")
PAUSED = "‖ paused (retries used up)  7k3fq2 processFile\n  why: taskrun why 7k3fq2   go on: taskrun resume 7k3fq2\n"


async def test_who_waits_for_a_run_that_gets_paused_is_told_what_lets_it_go_on(pipe: FakeTerminal) -> None:
    daemon = starting(wait=[HELD, DONE])
    assert await typed("wait @last", pipe, daemon) == 0
    assert pipe.chatter.startswith(PAUSED)
    assert daemon.params("wait")["paused"]


@pytest.mark.parametrize("line", ["tail @last", "tail @last --json", "tail"])
async def test_who_follows_the_log_of_a_run_that_gets_paused_is_told_so_each_time(
    line: str, pipe: FakeTerminal
) -> None:
    held, on = ({"kind": "run", "run": run} for run in (HELD, RUN))
    changes = [*WATCH, held, held, on, held, {"kind": "run", "run": DONE}]
    daemon = Slow(find=RUN["id"], runs=[RUN], watch=changes, tail=ending(DONE))
    assert await typed(line, pipe, daemon) == 0
    assert pipe.chatter.count(PAUSED) == pipe.chatter.count("paused") == 2


async def test_a_run_whose_daemon_was_replaced_ends_as_it_ended(screen: FakeTerminal) -> None:
    text = a_run(status=Status.SUCCEEDED, output='"hi"')
    jobs = {"jobs": [JOB | {"commands": ["echo hi"]}], "pipes": [], "problems": []}
    answers = iter([jobs, DaemonStopped("the daemon was stopped")])
    gone, following = starting(tail=ending(text), jobs=lambda: next(answers)), starting(tail=ending(text), jobs=jobs)
    gate = FakeGate(gone)

    async def reader(config: Config) -> Backend:
        return following

    gate.reader = reader  # type: ignore[method-assign]
    assert await execute(["run", "processFile", "--path", "a"], screen, gate) == 0
    assert screen.written == ""  # its log has what it printed


@pytest.mark.parametrize(
    ("pipes", "hint"),
    [
        (["uploads", "mails"], "there are: uploads, mails"),
        (["nopes"], "did you mean  nopes"),
        ([], "there is none; declare"),
    ],
)
async def test_an_unknown_pipe_is_told_with_those_that_there_are(
    pipes: list[str], hint: str, pipe: FakeTerminal
) -> None:
    described = {"jobs": [JOB], "pipes": [{"name": name, "input_schema": {}} for name in pipes], "problems": []}
    assert await typed("send nope", pipe, FakeDaemon(jobs=described)) == 3
    assert pipe.chatter.splitlines()[1].startswith(f"  {hint}")


async def test_run_prints_a_string_as_it_is(pipe: FakeTerminal) -> None:
    run = a_run(status=Status.SUCCEEDED, output='"a\\nb"')
    assert await typed("run processFile --path a", pipe, starting(tail=ending(run))) == 0
    assert pipe.written == "a\nb\n"


@pytest.mark.parametrize(
    ("commands", "more", "output", "printed"),
    [
        (["echo hi"], "", '"hi"', ""),
        (["echo hi"], " -q", '"hi"', "hi\n"),
        (["echo 1"], "", "1", "1\n"),
        ([], "", '"hi"', "hi\n"),
    ],
)
async def test_a_terminal_that_has_shown_what_a_command_printed_needs_no_second_one(
    screen: FakeTerminal, pipe: FakeTerminal, commands: list[str], more: str, output: str, printed: str
) -> None:
    run = a_run(status=Status.SUCCEEDED, output=output)
    jobs = {"jobs": [{**JOB, "commands": commands}], "pipes": [], "problems": []}
    assert await typed(f"run processFile --path a{more}", screen, starting(tail=ending(run), jobs=jobs)) == 0
    assert screen.written == printed
    assert await typed(f"run processFile --path a{more}", pipe, starting(tail=ending(run), jobs=jobs)) == 0
    assert pipe.written == f"{json.loads(output)}\n"


async def test_json_of_run_is_the_run_and_nothing_else(pipe: FakeTerminal) -> None:
    assert await typed("run processFile --path a --json", pipe, starting(tail=ending(DONE))) == 0
    assert json.loads(pipe.written) == DONE


async def interrupted(command: str, terminal: FakeTerminal, daemon: FakeDaemon, times: int = 1) -> int:
    task = asyncio.ensure_future(typed(command, terminal, daemon))
    while not any(op in ("tail", "watch", "wait") for op, _ in daemon.asked):
        await asyncio.sleep(0)
    for _ in range(times):
        await asyncio.sleep(0)
        terminal.interrupt()
    return await task


class Interrupting(FakeDaemon):
    """Has Ctrl-C pressed while it starts a run."""

    def __init__(self, terminal: FakeTerminal, times: int = 1, **answers: Any) -> None:
        super().__init__(start={"run": RUN, "created": True}, **answers)
        self.terminal, self.times = terminal, times

    async def call(self, op: str, **params: Any) -> Any:
        if op == "start":
            for _ in range(self.times):
                self.terminal.interrupt()
            await asyncio.sleep(0)
        return await super().call(op, **params)


async def test_ctrl_c_before_the_run_is_known_cancels_it_as_soon_as_it_is(pipe: FakeTerminal) -> None:
    ended = a_run(status=Status.CANCELLED, reason="explicit", ended_at=NOW)
    daemon = Interrupting(pipe, cancel=[], tail=[{"kind": "end", "run": ended}], watch=[{"kind": "run", "run": ended}])
    assert await typed("run processFile --path a", pipe, daemon) == 130
    assert daemon.params("cancel")["run"] == RUN["id"]


@pytest.mark.parametrize("command", ["start processFile --path a -f", "exec -f -- true"])
async def test_ctrl_c_before_the_run_is_known_says_which_one_goes_on(pipe: FakeTerminal, command: str) -> None:
    daemon = Interrupting(pipe, tail=[FOREVER], watch=[*WATCH, FOREVER])
    assert await typed(command, pipe, daemon) == 130
    assert f"no longer following; {RUN['id'][:6]} goes on" in pipe.chatter


@pytest.mark.parametrize("command", ["run processFile --path a", "start processFile --path a -f"])
async def test_a_second_ctrl_c_waits_for_no_answer(pipe: FakeTerminal, command: str) -> None:
    daemon = Interrupting(pipe, times=2)
    assert await typed(command, pipe, daemon) == 130
    assert "start" not in [op for op, _ in daemon.asked]


async def test_ctrl_c_cancels_a_run_and_waits_for_its_end(pipe: FakeTerminal) -> None:
    cancelled = asyncio.Event()
    ended = a_run(status=Status.CANCELLED, reason="explicit", ended_at=NOW)

    class Ending(FakeDaemon):
        async def stream(self, op: str, **params: Any) -> Any:
            self.asked.append((op, params))
            if op == "tail":
                await cancelled.wait()
                yield {"kind": "end", "run": ended}

    daemon = Ending(start={"run": RUN, "created": True}, cancel=lambda **_: cancelled.set())
    assert await interrupted("run processFile --path a", pipe, daemon) == 130
    assert daemon.params("cancel")["run"] == RUN["id"]
    assert "Ctrl-C again kills it" in pipe.chatter


async def test_a_second_ctrl_c_leaves_at_once(pipe: FakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrun.cli.commands.run.KILLED_WITHIN", 0.05)
    daemon = starting(tail=[FOREVER], cancel=[])
    assert await interrupted("run processFile --path a", pipe, daemon, times=2) == 130
    assert [params.get("grace") for op, params in daemon.asked if op == "cancel"] == [None, 0]


@pytest.mark.parametrize("command", ["start -f processFile --path a", "tail @last", "wait @last"])
async def test_ctrl_c_only_stops_looking_and_says_that_the_run_goes_on(command: str, pipe: FakeTerminal) -> None:
    daemon = starting(tail=[FOREVER], wait=[FOREVER])
    assert await interrupted(command, pipe, daemon) == 130
    assert "7k3fq2 goes on: taskrun" in pipe.chatter
    assert "cancel" not in [op for op, _ in daemon.asked]


async def test_ctrl_c_ends_a_live_listing_well(screen: FakeTerminal) -> None:
    screen.facts = type(screen.facts)(**{**_fields(screen), "cursor": True})
    daemon = FakeDaemon(watch=[*WATCH, FOREVER])
    assert await interrupted("list -w", screen, daemon) == 0
    assert screen.written.endswith("\x1b[?25h")


def _fields(terminal: FakeTerminal) -> dict[str, Any]:
    return {name: getattr(terminal.facts, name) for name in terminal.facts.__struct_fields__}


# ---- looking


async def test_a_piped_listing_is_tab_separated_with_full_ids_and_cut_values(pipe: FakeTerminal) -> None:
    long = a_run(input=to_json({"path": "x" * 400}))
    assert await typed("list", pipe, FakeDaemon(runs=[long])) == 0
    cells = pipe.written.rstrip("\n").split("\t")
    assert cells[:4] == [long["id"], "processFile", "running", long["created_at"]]
    assert len(cells[-1]) == 200
    assert cells[-1].endswith("…")


async def test_notifications_that_were_delivered_are_listed_when_they_are_asked_for(screen: FakeTerminal) -> None:
    told = [a_run("told1aaaaaaa", Status.SUCCEEDED, job="notify"), a_run("told2aaaaaaa", Status.FAILED, job="notify")]
    await typed("list", screen, FakeDaemon(runs=told))
    assert "told2a" in screen.written
    assert "told1a" not in screen.written
    await typed("list --job notify", screen, FakeDaemon(runs=told))
    assert "told1a" in screen.written


async def test_a_listing_asks_for_what_was_typed(pipe: FakeTerminal) -> None:
    daemon = FakeDaemon(runs=[])
    await typed("ps --job a --status failed,queued --status failed -n 5", pipe, daemon)
    asked = {"job": "a", "status": ["failed", "queued"], "since": None, "limit": 5, "tags": (), "parent": None}
    assert daemon.params("runs") == {**asked, "folds": False}
    for typed_line, limit in (("list --all", None), ("list", 20)):
        every = FakeDaemon(runs=[])
        await typed(typed_line, pipe, every)
        assert (every.params("runs")["limit"], every.params("runs")["folds"]) == (limit, limit is not None)


@pytest.mark.parametrize(
    ("command", "answers"),
    [
        ("list --json", {"runs": [RUN]}),
        ("show @last --json", {"show": shown(RUN, [a_step("fetch")])}),
        ("start processFile --path a --json", {}),
        ("jobs --json", {}),
        ("jobs processFile --json", {}),
        ("retry @last --json", {"retry": RUN, "show": shown(DONE)}),
        ("pause @last --json", {"pause": [RUN]}),
        ("resume processFile --json", {"resume": []}),
        ("cancel @last --json", {"cancel": [RUN]}),
        ("wait @last --json", {"wait": [DONE]}),
        ("start -f processFile --path a --json", {"tail": ending(DONE)}),
        ("show -w @last --json", {"show": shown(DONE), "watch": [{"kind": "run", "run": DONE}]}),
    ],
)
@pytest.mark.parametrize("tty", [False, True])
async def test_json_is_one_document_and_nothing_else(
    command: str, answers: dict[str, Any], tty: bool, project: Path
) -> None:
    terminal = FakeTerminal(project, out_tty=tty, err_tty=tty, in_tty=tty, colour=tty, cursor=tty)
    assert await typed(command, terminal, starting(**answers)) == 0, terminal.chatter
    json.loads(terminal.written)
    assert "\x1b" not in terminal.written


async def test_json_of_what_streams_is_one_document_for_each_line(pipe: FakeTerminal) -> None:
    assert await typed("tail @last --json", pipe, starting(tail=ending(DONE))) == 0
    assert [json.loads(line) for line in pipe.written.splitlines()] == [LOG]
    pipe.written = ""
    assert await interrupted("list -w --json", pipe, FakeDaemon(watch=[*WATCH, FOREVER])) == 0
    assert [json.loads(line) for line in pipe.written.splitlines()] == [RUN]


def stepping(key: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "step", "step": step_view(a_step(key, **fields))}


SENT: dict[str, Any] = {"id": "e", "started": [], "woke": [], "skipped": [], "refused": {}, "later": []}


class Slow(FakeDaemon):
    """Ends runs only once everything has been said about their steps."""

    def __init__(self, **answers: Any) -> None:
        super().__init__(**answers)
        self._said = asyncio.Event()

    async def stream(self, op: str, **params: Any) -> Any:
        if op == "tail":
            await self._said.wait()
        answers = self.answers[op](**params) if callable(self.answers[op]) else self.answers[op]
        self.asked.append((op, params))
        for item in answers:
            yield item
        self._said.set()
        await asyncio.Event().wait()


async def test_a_tail_says_which_steps_end_meanwhile_and_json_has_records_alone(pipe: FakeTerminal) -> None:
    before = {"kind": "run", "run": shown(RUN, [a_step("list")])}
    changes = [before, {"kind": "ready"}, stepping("list"), stepping("fetch"), stepping("id", kind=StepKind.VALUE)]
    daemon = Slow(find=RUN["id"], watch=changes, tail=ending(DONE))
    assert await typed("tail @last", pipe, daemon) == 0
    assert pipe.written == "hi\n"
    assert [line.strip() for line in pipe.chatter.splitlines()] == [
        "✓  fetch  10.0s",
        "✓ done  7k3fq2 processFile  8.0s",
    ]
    pipe.written = pipe.chatter = ""
    assert await typed("tail @last --json", pipe, Slow(find=RUN["id"], watch=changes, tail=ending(DONE))) == 0
    assert [json.loads(line)["text"] for line in pipe.written.splitlines()] == ["hi"]
    assert pipe.chatter == ""


async def test_a_tail_of_nothing_in_particular_takes_on_runs_that_start_later(pipe: FakeTerminal) -> None:
    other = a_run("9q2mx1bbbbbb", job="reindex", created_at=time.time() + 1)
    ended = {run["id"]: {**DONE, "id": run["id"], "job": run["job"]} for run in (RUN, other)}

    def tail(runs: list[str], **_: Any) -> list[dict[str, Any]]:
        said = [{"kind": "log", **LOG, "run": run, "text": f"of {run[:6]}"} for run in runs]
        return said + [{"kind": "end", "run": ended[run]} for run in runs]

    changes = [*WATCH, {"kind": "run", "run": other}, stepping("fetch")]
    assert await typed("tail", pipe, Slow(runs=[RUN], watch=changes, tail=tail)) == 0
    first, second = sorted(pipe.written.splitlines())
    assert first.startswith("7k3fq2 processFile ") and first.endswith(" of 7k3fq2")
    assert second.startswith("9q2mx1 reindex     ") and second.endswith(" of 9q2mx1")
    assert "7k3fq2 processFile" in next(line for line in pipe.chatter.splitlines() if "✓  fetch" in line)


async def test_a_tail_of_nothing_waits_for_the_next_run(pipe: FakeTerminal) -> None:
    assert await typed("tail", pipe, Slow(runs=[], watch=WATCH, tail=ending(DONE))) == 0
    assert pipe.chatter.startswith("nothing is active; waiting for the next run\n")
    assert pipe.written == "hi\n"


async def test_a_tail_goes_on_over_a_restart_without_gap_or_repeat(pipe: FakeTerminal) -> None:
    lines = [LOG | {"seq": seq, "text": f"line {seq}"} for seq in (1, 2, 3)]
    streams = [[lines[0], lines[1], DaemonError("gone")], [lines[1], lines[2], {"kind": "end", "run": DONE}]]

    class Restarting(FakeDaemon):
        async def stream(self, op: str, **params: Any) -> Any:
            self.answers[op] = streams.pop(0) if op == "tail" else [FOREVER]
            async for item in super().stream(op, **params):
                yield {"kind": "log", **item}

    daemon = Restarting(find=RUN["id"])
    assert await typed("tail @last", pipe, daemon) == 0
    assert pipe.written == "line 1\nline 2\nline 3\n"
    assert [params["after"][RUN["id"]] for op, params in daemon.asked if op == "tail"] == [0, 2]
    assert "resumed at 7k3fq2:2" in pipe.chatter


async def test_wait_gives_up_in_time(pipe: FakeTerminal) -> None:
    daemon = starting(wait=[FOREVER], show=shown(RUN))
    assert await typed("wait @last --timeout 1ms", pipe, daemon) == Code.TIMED_OUT
    assert "timed out: 7k3fq2" in pipe.chatter


async def test_wait_without_any_time_still_tells_of_what_has_ended(pipe: FakeTerminal) -> None:
    other = a_run("bbbbbbbbbbbb")

    class Ended(FakeDaemon):
        async def stream(self, op: str, **params: Any) -> Any:
            assert op == "wait"
            await asyncio.sleep(0)
            if DONE["id"] in params["runs"]:
                yield DONE
            if other["id"] in params["runs"]:
                await asyncio.Event().wait()

    daemon = Ended(find=lambda ref: ref, show=lambda run: shown(DONE if run == DONE["id"] else other))
    assert await typed(["wait", DONE["id"], "--timeout", "0s"], pipe, daemon) == 0
    assert "7k3fq2 processFile" in pipe.chatter
    pipe.chatter = ""
    both = ["wait", DONE["id"], other["id"], DONE["id"], "--timeout", "0s"]
    assert await typed(both, pipe, daemon) == Code.TIMED_OUT
    assert "7k3fq2 processFile" in pipe.chatter
    assert "timed out: bbbbbb has not ended" in pipe.chatter


# ---- changing


async def test_runs_of_a_job_that_is_gone_are_cancelled_by_its_name(pipe: FakeTerminal) -> None:
    run = a_run(job="gone")
    assert await typed("cancel --job gone", pipe, FakeDaemon(runs=[run], cancel=lambda **_: [run])) == 0
    for command, runs in (("cancel --job gone", []), ("cancel --job gone --path a", [run])):
        daemon = FakeDaemon(runs=runs)
        assert await typed(command, pipe, daemon) == Code.NOT_FOUND
        assert 'no job "gone"' in pipe.chatter
        assert "cancel" not in [op for op, _ in daemon.asked]


async def test_a_filter_that_hits_several_needs_a_yes(pipe: FakeTerminal, screen: FakeTerminal) -> None:
    runs = [a_run("aaaaaaaaaaaa"), a_run("bbbbbbbbbbbb"), a_run("cccccccccccc", input='{"path":"other"}')]
    command = "cancel --job processFile --path song.mp3"

    def daemon() -> FakeDaemon:
        return FakeDaemon(runs=runs, cancel=lambda run, **_: [one for one in runs if one["id"] == run])

    refusing = daemon()
    assert await typed(command, pipe, refusing) == Code.USAGE
    assert "would cancel 2 runs" in pipe.chatter
    assert "cancel" not in [op for op, _ in refusing.asked]
    for terminal, typing in ((pipe, command + " -y"), (screen, command)):
        terminal.answers = ["y"]
        willing = daemon()
        assert await typed(typing, terminal, willing) == 0
        cancelled = [params["run"] for op, params in willing.asked if op == "cancel"]
        assert cancelled == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    screen.answers = ["n"]
    assert await typed(command, screen, daemon()) == Code.USAGE


async def test_cancelling_what_has_ended_changes_nothing(pipe: FakeTerminal) -> None:
    daemon = starting(show=shown(DONE), cancel=[])
    assert await typed("cancel @last --json", pipe, daemon) == 0
    assert json.loads(pipe.written) == []


async def test_a_retry_of_what_succeeded_says_how_to_do_it_again(pipe: FakeTerminal) -> None:
    daemon = starting(retry=a_run("newnewnewnew"), show=shown(DONE, [a_step("fetch it")]))
    assert await typed("retry @last", pipe, daemon) == 0
    assert "to do all of it again: taskrun retry 7k3fq2 --from 'fetch it'" in pipe.chatter
    assert pipe.written == "newnewnewnew\n"
    every = starting(retry=a_run("newnewnewnew"), show=shown({**DONE, "job": "each"}, [a_step("inputs")]))
    assert await typed("retry @last --failed", pipe, every) == 0
    assert "--from inputs" not in pipe.chatter, "without its inputs it would fail"


async def test_retry_prints_the_new_id(pipe: FakeTerminal) -> None:
    daemon = starting(retry=a_run("newnewnewnew"), show=shown(DONE))
    assert await typed("retry @last --from fetch", pipe, daemon) == 0
    assert pipe.written == "newnewnewnew\n"
    assert daemon.params("retry") == {"run": RUN["id"], "step": "fetch"}


# ---- errors


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RunNotFound('no run "abcd"'), 3, 'error: no run "abcd"\n  list them: taskrun list --all'),
        (AmbiguousRun("7k3f", [("7k3fq2", "a", NOW), ("7k3fzz", "b", NOW)]), 3, '"7k3f" matches 2 runs: 7k3fq2 a'),
        (InputInvalid("j", [("a.b_c", "Expected int"), ("", "odd")]), 2, "error: --a.b-c: Expected int\nerror: odd"),
        (RunEnded("run x has ended"), 5, "error: run x has ended"),
        (DaemonError("no answer"), 4, "error: no answer\n  see its log: taskrun daemon logs"),
        (JournalDamaged("damaged"), 4, "error: damaged"),
        (ZeroDivisionError("oops"), 125, "taskrun's own fault"),
        (BrokenPipeError(), 141, ""),
    ],
)
async def test_errors_have_their_code_and_say_what_to_type(
    error: Exception, code: int, said: str, pipe: FakeTerminal
) -> None:
    assert await typed("show abcd", pipe, FakeDaemon(find=error)) == code
    assert said in pipe.chatter
    assert pipe.written == ""


# ---- help


@pytest.mark.parametrize(
    "command", ["init", "jobs", "start", "run", "send", "list", "show", "tail", "wait", "cancel", "retry", "pause"]
)
async def test_every_command_has_help_with_an_example(command: str, pipe: FakeTerminal) -> None:
    assert await typed(f"{command} --help", pipe, FakeDaemon()) == 0
    assert "Example: taskrun" in pipe.written


async def test_the_help_of_a_job_lists_its_options(pipe: FakeTerminal) -> None:
    assert await typed("start processFile --help", pipe, FakeDaemon()) == 0
    for text in ("--path TEXT", "--bitrate INTEGER", "default 128", "--dry / --no-dry", "--input.key TEXT", "required"):
        assert text in pipe.written


async def test_alone_it_lists_the_commands(pipe: FakeTerminal) -> None:
    assert await typed([], pipe, FakeDaemon()) == 0
    assert "start" in pipe.written
    assert await typed("--version", pipe, FakeDaemon()) == 0


# ---- init


async def test_init_writes_a_project_and_overwrites_nothing(tmp_path: Path) -> None:
    terminal = FakeTerminal(tmp_path)
    assert await typed("init shop", terminal, FakeDaemon()) == 0
    assert "next: cd shop && taskrun run hello" in terminal.chatter
    (tmp_path / "shop" / "jobs" / "hello.py").write_text("mine")
    assert await typed("init shop", terminal, FakeDaemon()) == 0
    assert (tmp_path / "shop" / "jobs" / "hello.py").read_text() == "mine"
    assert (tmp_path / "shop" / "taskrun.toml").exists()


async def test_both_first_jobs_run_and_fit_together(tmp_path: Path) -> None:
    await typed("init", FakeTerminal(tmp_path), FakeDaemon())
    for folder, there in (("my shop", "cd 'my shop' && "), ("", ""), ("./", "")):
        terminal = FakeTerminal(tmp_path)
        assert await typed(["init", folder], terminal, FakeDaemon()) == 0
        assert f"next: {there}taskrun run hello" in terminal.chatter
    for line, printed in (("run hello --name Ada --local", "Hello, Ada.\n"), ("run disk --path / --local", "% ")):
        terminal = FakeTerminal(tmp_path)
        assert await typed(line, terminal, FakeDaemon()) == 0, terminal.chatter
        assert printed in terminal.written
    screen = FakeTerminal(tmp_path, out_tty=True, err_tty=True)
    assert await typed("run disk --local", screen, FakeDaemon()) == 0
    assert screen.written == "", "what it printed is in the log that the terminal shows"


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("start nojob --json", "JobNotFound"),
        ("send nopipe --json", "PipeNotFound"),
        ("start processFile --bitrate hi --json", "InputInvalid"),
        ("start processFile --input {x --json", "InputInvalid"),
        ("start processFile --path a --in soon --json", "DurationInvalid"),
        ("list --status odd --json", "UsageError"),
        ("list --json --bogus", "UsageError"),
        ("lst --json", "UsageError"),
        ("show nowhere --json", "RunNotFound"),
    ],
)
async def test_a_failure_is_json_too_where_json_was_asked_for(pipe: FakeTerminal, command: str, kind: str) -> None:
    daemon = FakeDaemon(find=RunNotFound('no run "nowhere"'))
    assert await typed(command, pipe, daemon) in (Code.USAGE, Code.NOT_FOUND)
    (line,) = pipe.written.splitlines()
    error = json.loads(line)["error"]
    assert set(error) == {"type", "message", "hint"}
    assert error["type"] == kind
    assert f"error: {error['message'].splitlines()[0]}" in pipe.chatter


async def test_a_failure_is_shown_once_on_a_terminal(screen: FakeTerminal) -> None:
    assert await typed("start nojob --json", screen, FakeDaemon()) == Code.NOT_FOUND
    assert json.loads(screen.written)["error"]["message"] == 'no job "nojob"'
    assert not screen.chatter


async def test_json_that_is_no_option_of_the_command_asks_for_none(pipe: FakeTerminal) -> None:
    assert await typed(["start", "nojob", "--", "--json"], pipe, FakeDaemon()) == Code.USAGE
    assert not pipe.written


async def test_what_the_job_refuses_is_named_as_it_is_typed(pipe: FakeTerminal) -> None:
    refused = InputInvalid("processFile", [("key", "too short"), ("image.max_size", "too big"), ("tags[0]", "empty")])
    assert await typed("start processFile --path a", pipe, FakeDaemon(start=refused)) == Code.USAGE
    assert pipe.chatter.splitlines()[:3] == [
        "error: --input.key: too short",
        "error: --image.max-size: too big",
        "error: --tags[0]: empty",
    ]


async def test_paths_are_sent_as_seen_from_the_callers_folder(pipe: FakeTerminal, project: Path) -> None:
    path = {"type": "object", "properties": {"p": {"type": "string", "format": "path"}}}
    described = {"jobs": [{**JOB, "input_schema": path}], "pipes": [{"name": "up", "input_schema": path}]}
    daemon = FakeDaemon(jobs={**described, "problems": []}, start={"run": a_run(), "created": True}, send=SENT)
    assert await typed("start processFile --p a.txt", pipe, daemon) == 0
    assert json.loads(daemon.params("start")["input"]) == {"p": str(project / "a.txt")}
    assert await typed("send up --p a.txt", pipe, daemon) == 0
    assert json.loads(daemon.params("send")["data"]) == {"p": str(project / "a.txt")}
    run = {**a_run(), "input": {"p": str(project / "a.txt")}}
    daemon = FakeDaemon(jobs={**described, "problems": []}, runs=[run], cancel=lambda **_: [run])
    assert await typed("cancel --job processFile --p a.txt --json", pipe, daemon) == 0
    assert daemon.params("cancel")["run"] == run["id"]


@pytest.mark.parametrize(
    ("word", "status"), [("done", "succeeded"), ("Done", "succeeded"), ("failed", "failed"), ("retry", "scheduled")]
)
async def test_a_status_may_be_said_in_the_words_of_the_screens(pipe: FakeTerminal, word: str, status: str) -> None:
    daemon = FakeDaemon(runs=[])
    assert await typed(f"list --status {word}", pipe, daemon) == 0
    assert daemon.params("runs")["status"] == [status]


@pytest.mark.parametrize("command", ["list --status ,", "cancel --job processFile --status ,"])
async def test_no_status_at_all_is_no_filter(pipe: FakeTerminal, command: str) -> None:
    daemon = FakeDaemon(runs=[RUN])
    assert await typed(command, pipe, daemon) == Code.USAGE
    assert not daemon.asked


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["start", "processFile", "--path", "a", "--in", ""], "--in"),
        (["start", "processFile", "--path", "a", "--at="], "--at"),
        (["run", "processFile", "--path", "a", "--key", ""], "--key"),
        (["start", "processFile", "--path", "a", "--input", ""], "--input"),
        (["list", "--since", ""], "--since"),
        (["list", "--job", ""], "--job"),
        (["cancel", "--job", "", "-y"], "--job"),
        (["wait", "7k3f", "--timeout="], "--timeout"),
        (["prune", "--older-than", ""], "--older-than"),
        (["retry", "7k3f", "--from", ""], "--from"),
        (["tail", "7k3f", "--since", ""], "--since"),
        (["--config=", "list"], "--config"),
        (["list", "--config", ""], "--config"),
    ],
)
async def test_an_option_that_is_empty_is_refused(pipe: FakeTerminal, command: list[str], said: str) -> None:
    daemon = starting(runs=[RUN])
    assert await typed(command, pipe, daemon) == Code.USAGE
    assert said in pipe.chatter
    assert not daemon.asked


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--in 5", "the units are ms, s, m, h, d, w and y"),
        ("--in 5parsecs", "unknown unit 'parsecs'; the units are"),
        ("--in=-5s", "the units are ms, s, m, h, d, w and y"),
        ("--in 99999999999y", "is too long: at most 1000y"),
        ("--at soon", '"soon" is not a time, as in 18:30'),
        ("--at 25:00", "is not a time, as in 18:30"),
        ("--at 9999-12-31", "is not a time, as in 18:30"),
        ("--in 1h --at 10:00", "--in a while or --at a time, not both"),
        ("--input null", "--input is not a JSON object"),
        ("--input 5", "--input is not a JSON object"),
        ("--bitrate \udce9", "is not an integer"),
    ],
)
async def test_what_is_no_time_and_no_input_is_refused(pipe: FakeTerminal, option: str, said: str) -> None:
    daemon = starting()
    assert await typed(f"start processFile --path a {option}", pipe, daemon) == Code.USAGE
    assert said in pipe.chatter
    assert "start" not in [op for op, _ in daemon.asked]


async def test_null_may_be_sent(pipe: FakeTerminal) -> None:
    pipes = [{"name": "any", "input_schema": {}}]
    daemon = FakeDaemon(jobs={"jobs": [], "pipes": pipes, "problems": []}, send=SENT)
    assert await typed("send any --input null", pipe, daemon) == 0
    assert daemon.params("send")["data"] == "null"


@pytest.mark.parametrize("status", ["succeeded", "done", "failed,cancelled"])
async def test_cancel_of_what_has_ended_hits_nothing_else(pipe: FakeTerminal, status: str) -> None:
    daemon = FakeDaemon(runs=[RUN], cancel=lambda **_: [RUN])
    assert await typed(f"cancel --status {status} -y", pipe, daemon) == 0
    assert [op for op, _ in daemon.asked if op != "close"] == []
    assert "no run matches" in pipe.chatter


async def test_a_field_of_no_job_is_said_to_be_none(pipe: FakeTerminal) -> None:
    assert await typed("cancel --nmae x", pipe, FakeDaemon()) == Code.USAGE
    assert "there is no option --nmae; fields of an input go with --job" in pipe.chatter


@pytest.mark.parametrize(("command", "own"), [("start", "--follow"), ("run", "--local"), ("send", "--quiet")])
async def test_the_help_with_a_name_lists_its_options_and_the_commands_own(
    screen: FakeTerminal, command: str, own: str
) -> None:
    named = {"jobs": [JOB], "pipes": [{**JOB, "triggers": []}], "problems": []}
    assert await typed(f"{command} processFile --help", screen, FakeDaemon(jobs=named)) == 0
    fields, ours = screen.written.split(f"of taskrun {command} itself:")
    assert "--input.key TEXT" in fields
    assert own in ours
    assert "--input JSON|@FILE|-" in ours


async def test_a_local_run_that_is_paused_says_that_nothing_lets_it_go_on(project: Path) -> None:
    (project / "taskrun.toml").write_text('[jobs.holds]\ncommand = "false"\non_exhausted = "pause"\n')
    terminal = FakeTerminal(project)
    running = asyncio.ensure_future(execute(["run", "--local", "holds"], terminal, ProcessConnector()))
    while "Ctrl-C ends it" not in terminal.chatter:
        assert not running.done(), terminal.chatter
        await asyncio.sleep(0.01)
    assert terminal.chatter.index("✗  command") < terminal.chatter.index("paused: ")
    terminal.interrupt()
    assert await running == Code.INTERRUPTED


@pytest.mark.parametrize("option", ["--in 1h", "--at 10:00", "--key k"])
async def test_a_local_run_refuses_what_needs_a_journal(pipe: FakeTerminal, option: str) -> None:
    assert await typed(f"run hello --local {option}", pipe, FakeDaemon()) == Code.USAGE
    assert "have no meaning with it" in pipe.chatter


async def test_of_many_cancelled_runs_the_first_are_named_and_all_are_counted(pipe: FakeTerminal) -> None:
    runs = [a_run(f"{at:02}aaaaaaaaaa", Status.QUEUED) for at in range(14)]

    def cancel(run: str, **_: Any) -> list[dict[str, Any]]:
        return [] if run.startswith("13") else [a_run(run, Status.CANCELLED)]

    daemon = FakeDaemon(runs=runs, cancel=cancel, show=a_run("13aaaaaaaaaa", Status.SUCCEEDED))
    assert await typed("cancel --job processFile -y", pipe, daemon) == 0
    told = pipe.chatter.splitlines()
    assert told[9:] == [
        "09aaaa processFile: cancelled",
        "… and 4 more",
        "in all: 13 cancelled, 1 had already succeeded",
        "  see: taskrun show 00aaaa",
    ]
    assert len(pipe.written.splitlines()) == 13
