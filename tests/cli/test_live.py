"""Sticky lines on an emulated screen: what stands there after every frame, a resize, and the end."""

from __future__ import annotations

import time
from typing import Any

from rich.text import Text

from taskrun.cli.screens.live import FRAME, Snapshot, Sticky, pause_after
from taskrun.cli.screens.look import Look
from taskrun.engine.core.queries.views import step_view
from taskrun.model.records import Status, StepStatus
from tests.cli.emulator import Emulator
from tests.cli.fakes import a_run, a_step


def sticky(view_for: Emulator, **more: Any) -> Sticky:
    return Sticky(view_for.write, view_for.size, Look(view_for.width), **more)


def test_a_frame_replaces_the_one_before_and_lines_scroll_above() -> None:
    view_for = Emulator(40)
    lines = sticky(view_for)
    lines.paint(Text("one\ntwo\nthree"))
    lines.above("log 1")
    lines.paint(Text("uno"))
    lines.above("log 2\nlog 3")
    assert view_for.text() == ["log 1", "log 2", "log 3", "uno"]


def test_the_last_frame_stays_and_the_terminal_is_given_back() -> None:
    view_for = Emulator(40)
    lines = sticky(view_for)
    lines.paint(Text("frame"))
    assert not view_for.cursor_shown
    lines.close()
    lines.close()
    view_for.write("after")
    assert view_for.text() == ["frame", "after"]
    assert view_for.cursor_shown


def test_a_narrower_screen_leaves_nothing_behind() -> None:
    view_for = Emulator(40)
    lines = sticky(view_for)
    lines.above("log")
    lines.paint(Text("x" * 30 + "\n" + "y" * 30))
    view_for.narrow(20)
    lines.paint(Text("x" * 30 + "\nend"))
    assert view_for.text() == ["log", "x" * 18 + "…", "end"]


def test_a_screen_that_is_too_short_says_how_much_it_leaves_out() -> None:
    frame = Text("\n".join("abcdef"))
    first, last = Emulator(20, height=4), Emulator(20, height=4)
    sticky(first).paint(frame)
    sticky(last, tail=True).paint(frame)
    assert first.text() == ["a", "b", "… 4 more"]
    assert last.text() == ["… 4 more", "e", "f"]


def test_at_the_end_even_a_short_screen_gets_every_line() -> None:
    view_for = Emulator(20, height=3)
    lines = sticky(view_for)
    lines.paint(Text("a\nb\nc\nd"))
    lines.close()
    assert view_for.text() == ["a", "b", "c", "d"]


def test_changes_fold_into_a_snapshot() -> None:
    snapshot = Snapshot()
    run = a_run(steps=[a_step("a")])
    snapshot.fold({"kind": "run", "run": {**run, "steps": [step_view(a_step("a"))]}})
    snapshot.fold({"kind": "step", "step": step_view(a_step("b", StepStatus.RUNNING))})
    snapshot.fold({"kind": "ready"})
    snapshot.fold({"kind": "run", "run": {**a_run(status=Status.PAUSED), "step": None, "steps_ended": None}})
    (found,) = snapshot.newest()
    assert found["status"] == "paused"
    assert found["step"]["key"] == "b"
    assert found["steps_ended"] == 1


def test_a_frame_that_takes_long_to_draw_is_drawn_less_often() -> None:
    assert pause_after(time.thread_time()) == FRAME
    assert pause_after(time.thread_time() - 0.01) >= 0.8


def test_a_step_with_which_a_run_came_is_counted_once_when_it_is_told_again() -> None:
    running = a_step("command", StepStatus.RUNNING)
    snapshot = Snapshot()
    snapshot.fold({"kind": "run", "run": a_run(steps=[running]) | {"steps_ended": 0, "steps_under_way": 1}})
    snapshot.fold({"kind": "step", "step": step_view(running)})  # as when its command is adopted
    (run,) = snapshot.newest()
    assert (run["steps_ended"], run["steps_under_way"]) == (0, 1)
    snapshot.fold({"kind": "step", "step": step_view(a_step("command"))})
    snapshot.fold({"kind": "step", "step": step_view(a_step("next", StepStatus.RUNNING))})
    (run,) = snapshot.newest()
    assert (run["steps_ended"], run["steps_under_way"], run["step"]["key"]) == (1, 1, "next")
