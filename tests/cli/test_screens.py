"""Screens at fixed widths, without colour, without UTF-8: what they show, and that nothing steers a terminal."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len

from taskrun.builtins.any_command import any_command
from taskrun.cli.inputs.field_options import build
from taskrun.cli.inputs.input_schema import InputSchema
from taskrun.cli.sanitize import cell, coloured, lines, to_json
from taskrun.cli.screens.folds import folded_causes
from taskrun.cli.screens.jobs import job_screen, jobs_table, jobs_tsv, problem_line
from taskrun.cli.screens.look import Look, bar, printed, wrapped
from taskrun.cli.screens.phrases import UNTYPED, current, fault, given, progress, short_ids, tried
from taskrun.cli.screens.run import Source, end_line, live_steps, log_line, run_head, run_screen
from taskrun.cli.screens.runs import arranged, folded, once_each, runs_footer, runs_table, runs_tsv, totals
from taskrun.cli.screens.why import why_screen
from taskrun.cli.times import age, left, span
from taskrun.engine.core.queries.views import run_view, step_view
from taskrun.model.records import ErrorRecord, Failure, Run, Status, StepKind, StepStatus
from tests.cli.fakes import JOB, NOW, a_run, a_step, shown

EVIL = {
    "escape": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;aGk=\x1b\\",
    "device": "\x1bP+q544e\x1b\\",
    "c1": "\x9b31mred\x9d0;owned\x9c",
    "bell": "\x07\x08\x7f\x00",
    "returns": "good\rbad",
    "bidi": "\u202egnp.\u2066exe\u200f",
    "separators": "a\u2028b\u2029c\u0085d",
    "surrogate": "\ud800",
    "tags": "\U000e0041",
}
LOOKS = [Look(80), Look(200), Look(30), Look(80, utf8=False)]


def error(message: str = "503 Service Unavailable", **more: Any) -> str:
    record = ErrorRecord(type=more.pop("type", "HTTPError"), message=message, **more)
    return json.dumps({name: getattr(record, name) for name in record.__struct_fields__})


def several() -> list[dict[str, Any]]:
    return [
        a_run(
            "9q2mx1aaaaaa",
            started_at=NOW - 12,
            input='{"path":"b.flac","dry":true}',
            progress='{"done":41,"total":100}',
            steps=[a_step("transcode", StepStatus.RUNNING)],
        ),
        a_run(
            "7k3fq2aaaaaa", Status.SUCCEEDED, started_at=NOW - 90, ended_at=NOW - 36, steps=[a_step("a"), a_step("b")]
        ),
        a_run("5d0xa8aaaaaa", Status.FAILED, job="syncLibrary", started_at=NOW - 20, ended_at=NOW - 7, error=error()),
        a_run("4a7pz0aaaaaa", Status.SCHEDULED, job="reindex", reason="retry", wake_at=NOW + 8, attempt=2),
        a_run("2c9vk3aaaaaa", Status.QUEUED),
    ]


def test_the_table_of_runs_at_80_columns() -> None:
    assert printed(runs_table(several(), NOW, Look(80)), Look(80)).splitlines() == [
        "RUN     JOB          STATE       AGE   TOOK  DETAILS",
        "9q2mx1  processFile  ⠹ running    1m  12.0s  transcode ██     41%",
        "7k3fq2  processFile  ✓ done       1m  54.0s  2 steps  path=song.mp3",
        "5d0xa8  syncLibrary  ✗ failed     1m  13.0s  HTTPError: 503 Service Unavailable",
        "4a7pz0  reindex      ↻ retry 8s   1m      –  attempt 2 of 4  path=song.mp3",
        "2c9vk3  processFile  ◌ queued     1m      –  path=song.mp3",
    ]


@pytest.mark.parametrize(
    ("attempt", "retry", "said"),
    [
        (1, 0, ""),
        (1, 3, ""),
        (2, 3, "attempt 2 of 4"),
        (4, 3, "attempt 4 of 4"),
        (5, 3, "attempt 5"),
        (2, 0, "attempt 2"),
    ],
)
def test_an_attempt_after_a_resume_is_none_of_those_that_the_retries_allow(attempt: int, retry: int, said: str) -> None:
    assert tried(a_run(attempt=attempt, retry=retry)) == said


def test_what_fits_has_columns_of_its_own() -> None:
    runs = [run for run in several() if run["status"] != "failed"]
    assert printed(runs_table(runs, NOW, Look(90)), Look(90)).splitlines()[:2] == [
        "RUN     JOB          STATE       AGE   TOOK  STEP                  INPUT",
        "9q2mx1  processFile  ⠹ running    1m  12.0s  transcode ██     41%  path=b.flac dry",
    ]


@pytest.mark.parametrize(
    ("status", "why", "shown"),
    [
        (
            Status.WAITING,
            'it has waited 1m 5s for an event of pipe "p"',
            '◔ waiting   1m    1m  for an event of pipe "p"',
        ),
        (
            Status.SCHEDULED,
            "it was triggered for later: it starts in 2h, at 18:30",
            "◷ scheduled   1m     –  starts in 2h, at 18:30",
        ),
    ],
)
def test_a_reason_does_not_repeat_other_columns(status: Status, why: str, shown: str) -> None:
    run = {**a_run(status=status, wake_at=NOW + 7200, started_at=None if "later" in why else NOW - 60), "why": [why]}
    assert shown in printed(runs_table([run], NOW, Look(120)), Look(120))


def test_an_error_comes_before_the_input_where_there_is_no_room_for_both() -> None:
    long = error("cannot open /srv/media/library/shows/the-long-show/season-01/episode-01.mkv")
    run = a_run(status=Status.FAILED, started_at=NOW - 20, ended_at=NOW - 7, error=long)
    (_, line) = printed(runs_table([run], NOW, Look(80)), Look(80)).splitlines()
    assert "HTTPError: cannot open" in line
    assert "song.mp3" not in line


def test_totals_are_wrapped_between_counts() -> None:
    assert (
        wrapped("8 of 68 runs · 5 running · 57 queued · 2 failed", 26)
        == "8 of 68 runs · 5 running\n57 queued · 2 failed"
    )


def test_a_wide_screen_shows_the_error_beside_the_input() -> None:
    text = printed(runs_table(several(), NOW, Look(200)), Look(200))
    assert "path=song.mp3  HTTPError: 503 Service Unavailable" in text
    assert "path=b.flac dry" in text


def test_without_utf8_states_are_words_and_everything_is_ascii() -> None:
    text = printed(runs_table(several(), NOW, Look(80, utf8=False)), Look(80, utf8=False))
    assert text.isascii()
    for word in ("running", "done", "failed", "retry 8s", "queued", "##---"):
        assert word in text


def test_columns_go_in_a_fixed_order_as_the_screen_narrows() -> None:
    heads = [
        printed(runs_table(several(), NOW, Look(width)), Look(width)).split("\n")[0].split()
        for width in (80, 60, 50, 30)
    ]
    assert [len(head) for head in heads] == sorted([len(head) for head in heads], reverse=True)
    assert heads[-1] == ["RUN", "JOB", "STATE"]


def test_columns_that_no_row_needs_do_not_appear() -> None:
    assert "STEP" not in printed(runs_table([a_run(status=Status.QUEUED)], NOW, Look(80)), Look(80))


@pytest.mark.parametrize("look", LOOKS)
def test_no_line_of_the_table_is_wider_than_the_screen(look: Look) -> None:
    wide = [*several(), a_run("ffffffffffff", input='{"名前":"' + "曲" * 80 + '"}')]
    for line in printed(runs_table(wide, NOW, look), look).splitlines():
        assert cell_len(line) <= max(look.width, 30)


def test_active_runs_come_first_and_those_that_wait_in_line_in_their_order() -> None:
    states = [Status.SUCCEEDED, Status.QUEUED, Status.WAITING, Status.QUEUED, Status.RUNNING, Status.FAILED]
    runs = [a_run(f"{at}aaaaaaaaaaa", state, seq=at) for at, state in enumerate(states)]
    assert [run["id"][0] for run in arranged(runs)] == ["4", "2", "1", "3", "5", "0"]


def test_many_queued_runs_are_folded_and_their_reason_is_said_once() -> None:
    queued = [a_run(f"q{at:02}aaaaaaaaa", Status.QUEUED, seq=at) for at in range(49)]
    busy = a_run("9q2mx1aaaaaa", started_at=NOW - 12, seq=90)
    kept, more = folded(arranged([*queued, busy]), 20)
    kept = once_each([{**run, "why": ["it is full"] if run["status"] == "queued" else None} for run in kept])
    assert printed(runs_table(kept, NOW, Look(80), more), Look(80)).splitlines() == [
        "RUN     JOB          STATE      AGE   TOOK  STEP     INPUT",
        "9q2mx1  processFile  ⠹ running   1m  12.0s           path=song.mp3",
        "q00aaa  processFile  ◌ queued    1m      –  is full  path=song.mp3",
        "q01aaa  processFile  ◌ queued    1m      –           path=song.mp3",
        "q02aaa  processFile  ◌ queued    1m      –           path=song.mp3",
        "… 46 more queued",
    ]
    assert folded(queued[:4], 20) == (queued[:4], 0)


@pytest.mark.parametrize(
    ("fields", "width", "expected"),
    [
        ({"title": "My song", "album": ""}, None, 'title="My song" album=""'),
        ({"path": "/music/a/b/song.flac", "n": 3}, 20, "path=…/song.flac n=3"[:9]),
        ({"path": "/home/ada/music/song.flac"}, 16, "path=…/song.flac"),
        ({"path": "a.mp3", "bitrate": 128}, None, "path=a.mp3"),
        ({"text": "no space left on /dev/sda1, clean it"}, 20, 'text="no space left'),
        ({"path": "a.mp3", "bitrate": 320}, None, "path=a.mp3 bitrate=320"),
    ],
)
def test_inputs_are_quoted_cut_at_the_left_of_paths_and_without_defaults(
    fields: dict[str, Any], width: int | None, expected: str
) -> None:
    assert given({"input": fields}, width, {"bitrate": 128}).startswith(expected)


def test_the_totals_count_the_journal_and_say_how_many_are_shown() -> None:
    counts = [("a", "running", 2), ("a", "succeeded", 57), ("b", "queued", 1)]
    assert totals(counts, "", 20) == "20 of 60 runs · 2 running · 1 queued · 57 done"
    assert totals(counts, "", 20, 5).startswith("20 of 60 runs, 5 of them children · 2 running")
    assert totals(counts, "b", 1, 5) == "1 run · 1 queued"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("`echo a; cp x y` ended with code 1\n  cp: x: No such file\n", "cp: x: No such file (code 1)"),
        ("`false` ended with code 1", "the command ended with code 1"),
    ],
)
def test_a_failed_command_is_told_by_its_last_words(message: str, expected: str) -> None:
    assert fault({"type": "taskrun.CommandFailed", "message": message}) == expected


def test_a_run_with_several_children_says_how_many_have_ended() -> None:
    run = {
        **a_run(status=Status.WAITING),
        "step": {"name": "item", "attempt": 1},
        "steps_ended": 20,
        "steps_under_way": 40,
    }
    assert current({**run, "why": ["it waits for its child"]}, Look(80)).plain == "item 20 of 60"


def test_a_long_bar_says_the_count_and_what_is_left() -> None:
    run = a_run(started_at=NOW - 5, progress='{"done":5,"total":20}')
    assert progress(run, Look(80), 8, NOW).plain == "██        25%  5/20 · about 15s left"


def test_the_help_of_a_job_has_no_internals_and_its_description_names_its_options() -> None:
    disk = {"id": "disk", "limit": 3, "mode": "rolling", "period": 1.0}
    job = {**JOB, "options": {"retry": 0, "concurrency": disk, "timeout": 300.0, "key_ttl": "fn"}}
    assert "retry" not in job_screen(job, Look(80), "start", [("--json", "one document")]).plain
    said = "options     retry 0 · concurrency id=disk limit=3 mode=rolling period=1s · timeout 5m · key_ttl fn"
    assert said in job_screen(job, Look(120)).plain


def test_why_says_for_how_long_what_ends_a_wait_and_the_error_of_a_failed_run() -> None:
    queued = a_run(status=Status.QUEUED)
    causes = [{"kind": "event", "text": "it has waited 5s for an event", "command": "taskrun send go"}]
    assert printed(why_screen(shown(queued), causes, NOW, Look(80)), Look(80)).splitlines() == [
        "◌ 7k3fq2 processFile queued for 1m",
        "  it has waited 5s for an event",
        "  → taskrun send go",
        "next    follow: taskrun tail 7k3fq2   cancel: taskrun cancel 7k3fq2",
    ]
    told = error("`make` ended with code 2\n  no rule to make it", type="taskrun.CommandFailed")
    failed = a_run(status=Status.FAILED, ended_at=NOW - 17, error=told)
    ended = [{"kind": "ended", "text": "failed 17s ago: taskrun.CommandFailed: `make` ended with code 2"}]
    head, *_ = printed(why_screen(shown(failed), ended, NOW, Look(80)), Look(80)).splitlines()
    assert head == "✗ 7k3fq2 processFile failed 17s ago: no rule to make it (code 2)"


def test_ids_are_short_but_stay_different() -> None:
    assert short_ids(["abcdef111111", "zzzzzz111111"]) == {"abcdef111111": "abcdef", "zzzzzz111111": "zzzzzz"}
    assert short_ids(["abcdef111111", "abcdef122222"])["abcdef111111"] == "abcdef11"


def test_a_failure_of_the_last_hour_is_pointed_at() -> None:
    assert runs_footer(several(), NOW) == "1 failed in the last hour: taskrun show 5d0xa8"
    assert runs_footer(several(), NOW, complete=False) == "failed last: taskrun show 5d0xa8"
    assert runs_footer(several(), NOW + 7200) == ""


def test_colour_says_nothing_that_words_do_not() -> None:
    plain = printed(runs_table(several(), NOW, Look(80)), Look(80))
    vivid = printed(runs_table(several(), NOW, Look(80, colour=True)), Look(80, colour=True))
    assert "\x1b[" in vivid
    assert coloured(vivid).count("\x1b") > 0
    assert re.sub(r"\x1b\[[0-9;]*m", "", vivid) == plain


def test_one_run_shows_its_steps_its_error_with_code_and_what_to_type_next() -> None:
    run = a_run(
        "5d0xa8aaaaaa",
        Status.FAILED,
        job="syncLibrary",
        started_at=NOW - 60,
        ended_at=NOW - 40,
        attempt=2,
        error=error(where="jobs/sync.py:48 in fetch_page"),
        source="schedule 0 * * * *",
    )
    failure = Failure(attempt=1, at=NOW - 45, error=ErrorRecord("HTTPError", "502"), started_at=NOW - 46)
    tried = msgspec.json.encode([failure]).decode()
    steps = [
        a_step("list", output="812"),
        a_step("fetch", StepStatus.FAILED, attempt=2, error=error("503"), failures=tried),
    ]
    log = [{"seq": 214, "at": run["started_at"], "run": run["id"], "step": None, "stream": "log", "text": "giving up"}]
    code = Source(48, [(47, "r = get(url)"), (48, "r.raise_for_status()")])
    text = printed(run_screen(shown(run, steps, log=log, log_lines=214), NOW, Look(200), code), Look(200))
    for part in (
        "syncLibrary 5d0xa8aaaaaa · ✗ failed 40s ago after 20.0s · attempt 2 of 4 · trigger: schedule 0 * * * *",
        "input   path=song.mp3",
        "→ 812",
        "✗  fetch  try 1",
        "✗         try 2",
        "ERROR  HTTPError: 503 Service Unavailable",
        "jobs/sync.py:48 in fetch_page",
        "❱   48 │ r.raise_for_status()",
        "last log lines (of 214)",
        "retry: taskrun retry 5d0xa8   from a step: taskrun retry 5d0xa8 --from list   all logs:",
    ):
        assert part in text, text


def test_a_retry_from_a_step_is_offered_where_one_was_kept_and_as_the_shell_wants_it() -> None:
    run = a_run(status=Status.FAILED, ended_at=NOW)
    cases = {"fetch#2": "--from 'fetch#2'", "2/fetch": "--from 2/fetch", "a b": "--from 'a b'"}
    for key, offered in cases.items():
        text = printed(run_screen(shown(run, [a_step("first"), a_step(key)]), NOW, Look(200)), Look(200))
        assert f"taskrun retry 7k3fq2 {offered}   all logs" in text
    tiny = printed(run_screen(shown(run, [a_step("fetch")]), NOW, Look(30)), Look(30))
    assert "taskrun retry 7k3fq2 --from fetch\n" in tiny, "no command is cut"
    narrow = printed(run_screen(shown(run, [a_step("fetch")]), NOW, Look(60)), Look(60))
    assert narrow.endswith(
        "next    retry: taskrun retry 7k3fq2\n"
        "        from a step: taskrun retry 7k3fq2 --from fetch\n"
        "        all logs: taskrun tail 7k3fq2\n"
    )
    for steps in ([], [a_step("fetch", StepStatus.FAILED)], [a_step("id", kind=StepKind.VALUE)]):
        assert "--from" not in printed(run_screen(shown(run, steps), NOW, Look(200)), Look(200))


def test_live_steps_show_the_one_under_way_with_the_progress() -> None:
    run = a_run(started_at=NOW - 60, progress='{"done":1,"total":2,"note":"1/2 MB"}')
    steps = [step_view(a_step("metadata")), step_view(a_step("upload", StepStatus.RUNNING))]
    assert printed(live_steps(run, steps, NOW, Look(80)), Look(80)).splitlines() == [
        "  ✓  metadata  10.0s",
        "  ⠹  upload    50.0s  ██████████            50%  1/2 MB · about 1m left",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0s"), (41.3, "41.3s"), (72, "1m 12s"), (3600, "1h"), (277200, "3d 5h")]
)
def test_spans_are_short(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59, "59s"), (61, "1m"), (86400 * 3, "3d")])
def test_ages_have_one_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (7.6, "8s"),
        (59.7, "1m"),
        (80, "1m"),
        (299.9, "5m"),
        (3598, "1h"),
        (3540, "59m"),
        (86399, "1d"),
        (3e8, "10y"),
    ],
)
def test_what_is_left_is_rounded_in_its_largest_unit(seconds: float, text: str) -> None:
    assert left(seconds) == text


EXEC_INPUT: dict[str, Any] = {
    "command": ["echo", "hi"],
    "cwd": "/srv",
    "path": "/usr/bin:/bin",
    "env": {},
    "group": None,
    "slots": 1,
}
EXEC_INPUT |= {"retry": 0, "timeout": None, "priority": 0, "rerun": True}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, {"command": ["echo", "hi"], "cwd": "/srv"}),
        ({"env": {"A": "***"}, "group": "g", "slots": 2}, {"env": {"A": "***"}, "group": "g", "slots": 2}),
        ({"retry": 1, "timeout": 5.0, "rerun": False}, {"retry": 1, "timeout": 5.0, "rerun": False}),
    ],
)
def test_a_piped_command_has_what_was_typed_and_not_the_path_of_whoever_typed_it(
    given: dict[str, Any], told: dict[str, Any]
) -> None:
    run = a_run(job="exec", input=json.dumps(EXEC_INPUT | given))
    shown = json.loads(runs_tsv([run], NOW).rstrip("\n").split("\t")[-1])
    assert shown == {"command": ["echo", "hi"], "cwd": "/srv", **told}


@pytest.mark.parametrize(
    ("stdout", "told"), [("a\nlast line\n\n", "→ last line"), ("", ""), ("one", "→ one"), ("\x1b[2Jx", "→ ^[[2Jx")]
)
def test_a_command_that_has_ended_shows_the_last_line_that_it_printed(stdout: str, told: str) -> None:
    output = json.dumps({"code": 0, "stdout": stdout, "stderr": ""})
    step = a_step("encode", kind=StepKind.SHELL, output=output)
    text = printed(run_screen(shown(a_run(), [step]), NOW, Look(100)), Look(100))
    line = next(line for line in text.splitlines() if "encode" in line)
    assert line.partition("█" * 20)[2].strip() == told


def test_a_notification_is_shown_by_its_title_and_its_way() -> None:
    message = {
        "title": "backup failed",
        "text": "no luck",
        "to": "desktop",
        "event": "failed",
        "way": {"desktop": "***"},
    }
    assert given(a_run(job="notify", input=json.dumps(message))) == "backup failed, by desktop"


def test_an_error_that_is_not_retried_is_told_by_its_message() -> None:
    assert fault({"type": "taskrun.Fatal", "message": "1 of 5 runs failed"}) == "1 of 5 runs failed"
    assert fault({"type": "taskrun.Fatal", "message": ""}) == "Fatal"


def test_what_nobody_types_of_a_command_are_its_defaults() -> None:
    parameters = inspect.signature(any_command.fn).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.default is not one.empty and one.name != "path"}
    assert defaults == UNTYPED


@pytest.mark.parametrize(
    ("fraction", "text"), [(0, "    "), (0.5, "██  "), (1, "████"), (7, "████"), (-1, "    "), (0.28125, "█▏  ")]
)
def test_bars_stay_inside_their_width(fraction: float, text: str) -> None:
    assert bar(fraction, 4, Look()) == text


# ---- injection


def raw_controls(text: str) -> list[str]:
    """Returns what would reach a terminal as a control character, line ends and tabs aside."""
    forbidden = {*range(32), 127, *range(128, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F}
    return [char for char in text if ord(char) in forbidden and char not in "\n\t"]


def everywhere(evil: str) -> list[str]:
    """Returns every screen with `evil` in each text that a job decides on."""
    data = to_json({evil: evil})
    trouble = error(evil, type=evil, where=f"{evil}:3", traceback=evil)
    step = a_step(evil, StepStatus.FAILED, error=trouble, topic=evil, output=to_json(evil), started_at=NOW - 3)
    fields: dict[str, Any] = {"input": data, "output": to_json(evil), "error": trouble, "reason": evil, "source": evil}
    fields["progress"] = to_json({"done": 1, "total": 2, "note": evil})
    runs = [
        run_view(Run(id="7k3fq2aaaaaa", job=evil, created_at=NOW, status=state, **fields), step) for state in Status
    ]
    log = {"seq": 1, "at": runs[0]["created_at"], "run": "7k3fq2aaaaaa", "step": evil, "stream": "log", "text": evil}
    schema = {"type": "object", "properties": {evil: {"type": "string", "description": evil, "default": evil}}}
    job = {
        **JOB,
        "name": evil,
        "file": evil,
        "description": evil,
        "input_schema": schema,
        "options": {evil: evil},
        "triggers": [evil],
    }
    made: list[str] = [
        runs_tsv(runs, NOW),
        jobs_tsv([job]),
        log_line(log, "", False),
        problem_line({"file": evil, "message": evil}),
    ]
    made += [to_json(runs), *build(InputSchema(schema), [], folder=Path("/")).problems]
    for look in LOOKS:
        frames = [runs_table(runs, NOW, look), jobs_table([job], look), job_screen(job, look)]
        frames += [live_steps(run, [step_view(step)], NOW, look) for run in runs]
        frames += [run_head(run, NOW, look) for run in runs] + [end_line(run, NOW, look) for run in runs]
        details = [shown(run, [step], children=runs, log=[log], log_lines=2) for run in runs]
        frames += [run_screen(detail, NOW, look, Source(3, [(3, evil)])) for detail in details]
        made += [printed(frame, look) for frame in frames]
    return made


@pytest.mark.parametrize("evil", [text for name, text in EVIL.items() if name != "surrogate"])  # which no journal takes
def test_nothing_that_a_job_says_steers_a_terminal(evil: str) -> None:
    for text in everywhere(evil):
        assert raw_controls(text) == [], repr(text)


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL.keys())
def test_coloured_text_lets_nothing_through_but_colour(evil: str) -> None:
    assert raw_controls(re.sub(r"\x1b\[[0-9;:]*m", "", coloured(f"\x1b[1;31mok\x1b[0m{evil}"))) == []


def test_colour_is_reset_at_the_end_of_a_line() -> None:
    assert coloured("\x1b[31mred") == "\x1b[31mred\x1b[0m"
    assert coloured("plain") == "plain"


def test_what_is_hidden_can_be_seen() -> None:
    assert lines("a\x1b[31m\tb\r\nc\x9b\u202e") == "a^[[31m\tb\nc<9B><U+202E>"
    assert cell("a\n\tb\x00") == "a\\n\\tb^@"


def test_json_stays_equal_to_its_value() -> None:
    value = {key: text for key, text in EVIL.items() if key not in ("surrogate", "tags")}
    assert json.loads(to_json(value)) == value
    assert to_json(value).isprintable()


def test_children_in_the_same_state_are_one_cause_with_what_holds_the_first() -> None:
    held = "it waits for its child {0} encode, which is queued: it is full; {1} runs are ahead of it"
    children = [
        {"kind": "child", "job": "encode", "status": "queued", "command": "c", "text": held.format(f"q{at}", at)}
        for at in range(57)
    ]
    running = {"kind": "child", "job": "encode", "status": "running", "command": "why r", "text": "it waits for r"}
    found = folded_causes([running, *children, {"kind": "event", "text": "it waits for an event"}])
    assert [cause["text"] for cause in found] == [
        "it waits for r",
        "it waits for 57 children encode that are queued: it is full; 0 runs are ahead of it",
        "it waits for an event",
    ]
    assert [cause.get("command") for cause in found] == ["why r", None, None]


def test_an_attempt_that_failed_in_the_same_way_does_not_repeat_the_error() -> None:
    told = ("refused", "503 Service Unavailable")
    past = [Failure(attempt=at, at=NOW - 9, error=ErrorRecord("HTTPError", text)) for at, text in enumerate(told, 1)]
    failed = a_run(
        status=Status.FAILED,
        started_at=NOW - 20,
        ended_at=NOW - 7,
        error=error(),
        failures=msgspec.json.encode(past).decode(),
    )
    run = shown(failed)
    text = printed(run_screen(run, NOW, Look(80)), Look(80))
    assert "attempt 1: HTTPError: refused" in text
    assert "attempt 2: the same" in text


def test_a_run_that_is_to_be_tried_again_says_so() -> None:
    run = a_run(status=Status.SCHEDULED, reason="retry", wake_at=NOW + 8, attempt=2)
    assert printed(why_screen(run, [], NOW, Look(80)), Look(80)).startswith("↻ 7k3fq2 processFile is to be tried again")


def test_help_is_wrapped_between_words_beside_the_names_of_the_options() -> None:
    own = [
        ("--after-any RUN", "Start it once this run has ended, however that was; the option may be repeated."),
        ("--json", ""),
    ]
    text = printed(job_screen(JOB, Look(60), "start", own), Look(60))
    assert max(map(cell_len, text.splitlines())) <= 60
    assert text.splitlines()[-8:-3] == [
        "of taskrun start itself:",
        "  --after-any RUN    Start it once this run has ended,",
        "                     however that was; the option may be",
        "                     repeated.",
        "  --json",
    ]


def test_a_run_of_many_inputs_has_a_bar_before_the_first_has_ended() -> None:
    step = {"name": "encode", "attempt": 1}
    run = {
        **a_run(job="each", input='{"job":"encode","total":6}', started_at=NOW - 5),
        "step": step,
        "steps_under_way": 2,
    }
    assert "0/6" in printed(runs_table([run], NOW, Look(120)), Look(120))


@pytest.mark.parametrize("status", [Status.RUNNING, Status.SUCCEEDED, Status.CANCELLED])
def test_attempts_that_failed_are_told_whatever_became_of_the_run(status: Status) -> None:
    failures = [Failure(attempt=at, at=NOW - 45, error=ErrorRecord("ValueError", "no luck")) for at in (1, 2)]
    run = a_run(status=status, attempt=3, failures=msgspec.json.encode(failures).decode())
    text = printed(run_screen(shown(run), NOW, Look(80)), Look(80))
    assert "FAILED\n  attempt 1: ValueError: no luck\n  attempt 2: ValueError: no luck\n" in text
    assert "FAILED" not in printed(run_screen(shown(a_run(status=status)), NOW, Look(80)), Look(80))


def test_attempts_that_are_no_longer_in_the_history_are_counted() -> None:
    failures = [Failure(attempt=at, at=NOW, error=ErrorRecord("ValueError", "no luck")) for at in (1, 1203)]
    failures[1] = msgspec.structs.replace(failures[1], left_out=1201)
    run = a_run(status=Status.RUNNING, attempt=1204, failures=msgspec.json.encode(failures).decode())
    text = printed(run_screen(shown(run), NOW, Look(80)), Look(80))
    assert "  attempt 1: ValueError: no luck\n  … 1,201 more\n  attempt 1203: ValueError: no luck\n" in text


def test_what_a_command_has_printed_is_shown_if_it_is_anything() -> None:
    silent, said = (a_run(status=Status.SUCCEEDED, output=output) for output in ('""', '"hi"'))
    assert "output" not in printed(run_screen(shown(silent), NOW, Look(80)), Look(80))
    assert "output  hi\n" in printed(run_screen(shown(said), NOW, Look(80)), Look(80))


def test_a_run_that_had_ended_before_it_was_announced_says_how_once() -> None:
    failed = a_run(status=Status.FAILED, input="{}")
    assert run_head(failed, NOW, Look(80)).plain == "▸ 7k3fq2 ✗ failed processFile"
    assert run_head(failed, NOW, Look(80), followed=True).plain == "▸ 7k3fq2 processFile"


@pytest.mark.parametrize("status", [Status.RUNNING, Status.WAITING, Status.QUEUED])
def test_a_run_is_announced_alike_however_far_it_has_come(status: Status) -> None:
    assert printed(run_head(a_run(status=status), NOW, Look(80)), Look(80)) == "▸ 7k3fq2 processFile  path=song.mp3\n"
    assert printed(run_head(a_run(status=status, input="{}"), NOW, Look(80)), Look(80)) == "▸ 7k3fq2 processFile\n"
