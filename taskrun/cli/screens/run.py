"""One run: its input, its steps and when they were executed, how it ended, and what to type next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from shlex import quote
from typing import Any

import msgspec

from taskrun.cli import times
from taskrun.cli.lazy_imports import Text, cell_len
from taskrun.cli.project_option import for_project
from taskrun.cli.sanitize import LONGEST, brief, cell, coloured, cut, lines, value
from taskrun.cli.screens.folds import ALONE, around, names, with_groups
from taskrun.cli.screens.look import MARKS, Look, clipped, columns, hanging, labelled, mark, stacked, widest
from taskrun.cli.screens.phrases import (
    COMMAND_FAILED,
    ENDED,
    fault,
    given,
    last_words,
    named,
    progress,
    reason,
    short,
    state,
    tried,
)
from taskrun.model.names import EACH, EXEC
from taskrun.model.records import WHOLE

TRACK = 20  # columns of the timeline
SHOWN = 200  # characters of a command that has failed
CHILDREN = 5  # children that have a line each
STEPS = 40  # lines of steps, more are folded
LEAST = 4  # lines that steps and log have on the smallest screen
INDENT = 8  # columns of the label of a line
WAITING_KINDS = frozenset({"sleep", "wait", "child"})


class Source(msgspec.Struct, frozen=True):
    """Lines of code around an error: where it is, and numbered lines."""

    line: int
    lines: list[tuple[int, str]]


def run_screen(
    shown: dict[str, Any], now: float, look: Look, source: Source | None = None, height: int | None = None
) -> Text:
    """Returns everything about one run as a screen.

    Parameters:
        height: lines of the screen, when all is to fit; the steps get what the rest leaves.
    """
    head, children = [*_head(shown, now, look)], [*_children(shown, now, look)]
    log = shown["log"] if height is None else shown["log"][-max(LEAST, height // 4) :]
    tail = [*_error(shown, source, look), *_log({**shown, "log": log}, now), *next_lines(shown, look)]
    taken = sum(line.plain.count("\n") + 1 for _, line in [*head, *children, *tail])
    rows = STEPS if height is None else max(LEAST, height - taken - 2)
    parts = [*head, *_steps(shown, now, look, rows), *children, *tail]
    return stacked([clipped(line, look.width) if no_wrap else line for no_wrap, line in parts])


Line = tuple[bool, Text]  # the flag: whether it is cut at the screen's edge instead of wrapped


def _head(run: dict[str, Any], now: float, look: Look) -> Iterator[Line]:
    title = Text.assemble((named(run), "bold"), f" {run['id']} · ").append_text(state(run, now, look))
    seconds = times.took(run, now)
    if run["ended_at"]:
        title.append(f" {times.age(max(0.0, now - (times.moment(run['ended_at']) or now)))} ago")
    if seconds is not None:
        title.append(f" {'after' if run['ended_at'] else 'for'} {times.span(seconds)}")
    title.append(f" · {tries}" if (tries := tried(run)) else "")
    trigger = f" · trigger: {cell(run['source'])}" if run["source"] else ""
    if (
        run["source"] != "cli" or cell_len(title.plain + trigger) <= look.width
    ):  # what nobody asks is not cut, but left out
        title.append(trigger)
    yield True, title
    yield from _given(run)
    yield from _after(run)
    if run["tags"]:
        yield (
            True,
            Text.assemble(("tags    ", "dim"), " ".join(f"{name}={cell(text)}" for name, text in run["tags"].items())),
        )
    for name, label in (("parent", "parent"), ("retried_from", "retries"), ("key", "key")):
        if run[name]:
            yield True, Text.assemble((f"{label:<8}", "dim"), cell(run[name]))
    if (slot := times.moment(run["slot"])) is not None:
        started = times.moment(run["started_at"])
        verb = "not started" if started is None else "started"
        late = times.span(max(0.0, (now if started is None else started) - slot))
        yield True, Text.assemble(("slot    ", "dim"), f"{times.clock(run['slot'], now)}, {verb} {late} after it")
    if run["progress"]:
        yield True, Text.assemble(("at      ", "dim"), progress(run, look, TRACK, now))
    yield from _adopted_or_held(run, now, look)
    if run["status"] == "succeeded" and run["output"] != "":  # as of a command that has printed nothing
        yield False, Text.assemble(("output  ", "dim"), _output(run, look))


def _adopted_or_held(run: dict[str, Any], now: float, look: Look) -> Iterator[Line]:
    """Yields which commands were found again, and why the run does not go on."""
    for step, at in run.get("adopted", {}).items() if run["status"] == "running" else ():
        ago = times.age(max(0.0, now - (times.moment(at) or now)))
        text = f"{cell(step)}, {ago} ago: its command has gone on while nobody followed it"
        yield False, hanging(Text("adopted ", "dim"), [Text(text)], look)
    if run.get("why"):
        yield (
            False,
            hanging(
                Text("why     ", "dim"), [Text(for_project(reason(one, run), look.project)) for one in run["why"]], look
            ),
        )


def _given(run: dict[str, Any]) -> Iterator[Line]:
    """Yields what a run was given; of a command also where it is executed, its variables and its group."""
    fields = run["input"]
    if run["job"] != EXEC or not isinstance(fields, dict) or "command" not in fields:
        yield True, Text.assemble(("input   ", "dim"), given(run) or "{}")
        return
    yield True, Text.assemble(("command ", "dim"), given(run))
    yield True, Text.assemble(("folder  ", "dim"), cell(fields["cwd"]))
    if fields["env"]:
        yield True, Text.assemble(("env     ", "dim"), " ".join(f"{cell(name)}=***" for name in fields["env"]))
    if fields["group"]:
        slots = fields["slots"]
        yield True, Text.assemble(("group   ", "dim"), cell(fields["group"]), (f", {slots} at a time", "dim"))


def _after(run: dict[str, Any]) -> Iterator[Line]:
    """Yields the runs that a run starts after, and how far they are."""
    found = [
        f"{short(one['run'])} {'(' + MARKS[one['status']].word + ')' if one['status'] else ''}" for one in run["after"]
    ]
    if found:
        yield True, Text.assemble(("after   ", "dim"), "  ".join(one.rstrip() for one in found))


def _output(run: dict[str, Any], look: Look) -> Text:
    """Returns the output, and where it is cut, how to see all of it."""
    text, excerpt = value(run["output"]), "output" in run.get("cut", ())
    if len(text) <= LONGEST:
        return Text(text)
    size = f"more than {WHOLE:,}" if excerpt else f"{len(text):,}"
    more = f"  ({size} characters; all of it: taskrun show {short(run['id'])} --json)"
    return Text(cut(text, LONGEST)).append(for_project(more, look.project), "dim")


def _steps(run: dict[str, Any], now: float, look: Look, most: int) -> Iterator[Line]:
    if left_out := run.get("steps_left_out"):
        earlier = "1 earlier step" if left_out == 1 else f"{left_out:,} earlier steps"
        yield True, Text(for_project(f"… {earlier}: taskrun show {short(run['id'])} --json", look.project), "dim")
    tries = [one for step in with_groups(run["steps"], _alone(run)) for one in _tries(step)]
    if not tries:
        return
    begin = min(times.moment(one["started_at"]) or now for one in tries)
    end = max(times.moment(one["started_at" if one.get("held") else "ended_at"]) or now for one in tries)
    kept = around(tries, most)
    own = run["error"]["message"] if run["error"] else None
    rows = [_step_row(one, begin, max(end - begin, 1e-9), now, look, own) for one in kept if not isinstance(one, int)]
    table = [[Text(head, "dim") for head in ("", "STEP", "", "START", "TOOK", "", "")], *rows]
    head, *made = columns(table, widest(table), (False, False, False, False, True, False, False))
    yield True, head
    lines_of_steps = iter(made)
    for one in kept:
        folded = Text(f"   … {one:,} more", "dim") if isinstance(one, int) else None
        yield True, next(lines_of_steps) if folded is None else folded


def _alone(run: dict[str, Any]) -> int:
    """Returns how many children of one name have a line each; those of many inputs have one bar from the first on."""
    return 0 if run.get("job") == EACH else ALONE


def _tries(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a step once for each of its tries, the earlier ones as failed; `try` is their number if there are several."""
    several = bool(step["failures"])
    for past in step["failures"]:
        begun = past["started_at"] or past["at"]
        yield {**step, "status": "failed", "started_at": begun, "ended_at": past["at"], "error": past["error"]} | {
            "try": past["attempt"]
        }
    latest = {**step, "status": _status(step), "try": step["attempt"] if several else None}
    backing_off = several and latest["status"] == "running" and step["wake_at"] and step["kind"] not in WAITING_KINDS
    yield (
        latest | {"status": "retry", "started_at": step["wake_at"], "ended_at": step["wake_at"]}
        if backing_off
        else latest
    )


def _status(step: dict[str, Any]) -> str:
    """Returns the status of a step as it is shown: one that is held is not running."""
    if not step.get("held"):
        return str(step["status"])
    return "waiting" if step["kind"] in WAITING_KINDS else "interrupted"


def _step_row(step: dict[str, Any], begin: float, whole: float, now: float, look: Look, told: str | None) -> list[Text]:
    """Returns a step as cells; an error that is `told` elsewhere is not repeated."""
    seconds = times.took(step, now)
    first = step["try"] in (None, 1)
    return [
        mark(step["status"], look),
        Text(cell(step["key"]) if first else "", "" if step["kind"] not in WAITING_KINDS else "dim"),
        Text(f"try {step['try']}" if step["try"] else "", "yellow"),
        Text(times.clock(step["started_at"], now), "dim"),
        Text("" if seconds is None or step["status"] == "retry" else times.span(seconds)),
        _track(step, begin, whole, now, look),
        _step_end(step) if not step["error"] or step["error"]["message"] != told else Text(),
    ]


def _track(step: dict[str, Any], begin: float, whole: float, now: float, look: Look) -> Text:
    start = times.moment(step["started_at"]) or now
    end = times.moment(step["ended_at"]) or (start if step.get("held") else now)
    left = min(int((start - begin) / whole * TRACK), TRACK - 1)
    width = max(1, round((end - start) / whole * TRACK))
    block = "█" if step["kind"] not in WAITING_KINDS else "·"
    return Text("▏").append((" " * left + block * min(width, TRACK - left)).ljust(TRACK), "blue")


def _step_end(step: dict[str, Any]) -> Text:
    if step.get("group"):
        return Text(cell(step["group"]), "red" if step["status"] == "failed" else "dim")
    if step["error"]:
        return Text(fault(step["error"]), "red")
    if step["child"]:
        return Text(f"→ {short(step['child'])}", "dim")
    if step["topic"]:
        return Text(cell(step["topic"]), "dim")
    output = step["output"]
    if step["kind"] == "shell" and isinstance(output, dict) and "stdout" in output:  # the last line says how it went
        said = str(output["stdout"]).rstrip().rpartition("\n")[2]
        output = said or None
    return Text(f"→ {brief(output)}" if output is not None else "", "dim")


def _children(run: dict[str, Any], now: float, look: Look) -> Iterator[Line]:
    if run["children"]:
        yield True, Text("CHILDREN", "dim")
    failed = [child for child in run["children"] if child["status"] == "failed"]
    many = len(run["children"]) > CHILDREN
    apart = failed if many and len(failed) > 1 else []
    for error in dict.fromkeys(fault(child["error"]) for child in apart):
        same = [child for child in apart if fault(child["error"]) == error]
        head = labelled("failed", look).append(f"  {len(same):,} × ", "red")
        yield False, hanging(head, [Text(cell(error), "red"), Text(names(same), "dim")], look)
    others = [child for child in run["children"] if child not in apart]
    single = [child for child in others if child["status"] in ("failed", "running")] if many else others
    rest = Counter(child["status"] for child in others if child not in single[:CHILDREN])
    for child in single[:CHILDREN]:
        line = state(child, now, look).append(f"  {short(child['id'])} {named(child)}  ")
        line.append(f"{fault(child['error'])}  " if child["error"] else "", "red")
        yield True, line.append(given(child, look.width - cell_len(line.plain)), "dim")
    if rest:
        told = " · ".join(f"{count:,} {MARKS[status].word}" for status, count in rest.items())
        yield True, Text(f"{'…' if single else ' '} {told}", "dim")


def _error(run: dict[str, Any], source: Source | None, look: Look) -> Iterator[Line]:
    error, last = run["error"], fault(run["error"])
    if error is not None:
        told = [last, *error["message"].strip().splitlines()[1:]]
        if error["type"] == COMMAND_FAILED:  # its own last words, the lines before them, and then what it was
            command, _, _ = last_words(error)
            told = [last, *told[1:-1], cut(command, SHOWN)]
        yield False, hanging(Text("ERROR  ", "bold red"), [Text(cell(one), "default") for one in told], look)
    elif run["failures"]:
        yield True, Text("FAILED", "dim")
    for failure in run["failures"]:
        if failure["left_out"]:
            yield True, Text(f"  … {failure['left_out']:,} more", "dim")
        text = fault(failure["error"])
        yield True, Text(f"  attempt {failure['attempt']}: {'the same' if text == last else text}", "dim")
    if where := place(run):
        yield True, Text(f"  {cell(where)}", "dim")
    for number, text in source.lines if source else ():
        here = source is not None and number == source.line
        yield True, Text(f"{'❱' if here else ' '} {number:>4} │ {cell(text)}", "bold" if here else "dim")


def place(run: dict[str, Any]) -> str:
    """Returns where in the user's code a run's error was raised: in a step, if it came from one."""
    error = run["error"] or {}
    same = [
        step for step in run.get("steps") or () if step["error"] and step["error"]["message"] == error.get("message")
    ]
    inner = same[-1]["error"] if same else error
    return str(inner.get("where") or error.get("where") or "")


def _log(run: dict[str, Any], now: float) -> Iterator[Line]:
    if not run["log"]:
        return
    more = f" (of {run['log_lines']})" if run["log_lines"] > len(run["log"]) else ""
    yield True, Text(f"last log lines{more}", "dim")
    for line in run["log"]:
        yield True, Text(f"  {times.clock(line['at'], now)} ", "dim").append(cell(line["text"]), "default")


def next_lines(run: dict[str, Any], look: Look) -> Iterator[Line]:
    """Yields what to type next: on one line if there is room, else on one line each, so that no command is cut."""
    commands = [for_project(command, look.project) for command in next_commands(run)]
    line = "   ".join(commands)
    for at, text in enumerate([line] if len(line) + INDENT <= look.width else commands):
        yield False, Text.assemble((("" if at else "next").ljust(INDENT), "dim"), text)


def next_commands(run: dict[str, Any]) -> list[str]:
    """Returns what to type next, the likeliest command first."""
    ref = short(run["id"])
    if run["status"] in ("failed", "cancelled") and run["job"] == EACH:
        return [f"what failed or is missing: {retry_command(run)}", f"its runs: taskrun list --parent {ref}"]
    if run["status"] in ("failed", "cancelled"):
        kept = [
            step["key"] for step in run.get("steps") or () if step["status"] == "succeeded" and step["kind"] != "value"
        ]
        again = [f"from a step: taskrun retry {ref} --from {cell(quote(kept[-1]))}"] if kept else []
        return [f"retry: {retry_command(run)}", *again, f"all logs: taskrun tail {ref}"]
    if run["status"] in ENDED:
        return [f"all logs: taskrun tail {ref}", "all runs: taskrun list"]
    if run["status"] == "paused":
        return [f"go on: {resume_command(run)}", f"give up: taskrun cancel {ref}"]
    return [f"follow: taskrun tail {ref}", f"cancel: taskrun cancel {ref}"]


def retry_command(run: dict[str, Any]) -> str:
    """Returns the command that does again what is left to be done of a run that did not succeed."""
    return f"taskrun retry {short(run['id'])}" + (" --failed" if run["job"] == EACH else "")


def resume_command(run: dict[str, Any]) -> str:
    """Returns the command that lets a paused run go on; one that its job holds goes on with that."""
    return f"taskrun resume {cell(quote(run['job'])) if run['reason'] == 'job' else short(run['id'])}"


def paused_text(run: dict[str, Any], now: float, look: Look) -> str:
    """Returns what is said of a run that is paused while somebody waits for it: by itself it may never end."""
    ref = short(run["id"])
    head = f"{state(run, now, look)}  {ref} {named(run)}"
    return f"{head}\n  why: taskrun why {ref}   go on: {resume_command(run)}"


# ---- while it runs


def retry_line(run: dict[str, Any], now: float, look: Look, told: Collection[str] = ()) -> Text:
    """Returns the line that says that an attempt has failed and the next one comes; an error that was `told` is not repeated."""
    failure = run["failures"][-1]
    wake_at = times.moment(run["wake_at"])
    line = labelled("retry", look, "" if wake_at is None else f"in {times.span(max(0.0, wake_at - now))}")
    line.append(f"  attempt {failure['attempt']} of {run['attempts']} failed", "dim")
    return _with_fault(line, ": ", failure["error"], look, told)


def run_head(run: dict[str, Any], now: float, look: Look, followed: bool = False) -> Text:
    """Returns the line that announces a run.

    Parameters:
        followed: its end, and attempts that fail, are told later.
    """
    line = Text.assemble("▸ ", (short(run["id"]), "bold"), " ")
    told_later = followed and (run["status"] in ENDED or run["reason"] in ("retry", "backoff"))
    if run["status"] not in ("running", "waiting", "queued", "succeeded") and not told_later:
        line.append_text(state(run, now, look)).append(" ")
    fields = cut(given(run))
    return line.append(named(run)).append(f"  {fields}" if fields else "", "dim")


def live_steps(run: dict[str, Any], steps: Sequence[dict[str, Any]], now: float, look: Look) -> Text:
    """Returns the live frame of a run: its steps, the running one with the run's progress."""
    if run["status"] in ENDED:  # what was under way has ended with it
        over = {"status": "cancelled", "ended_at": run["ended_at"]}
        steps = [{**step, **over} if step["status"] == "running" else step for step in steps]
    rows = [_live_row(run, step, now, look) for step in with_groups(steps, _alone(run))]
    made = columns(rows, widest(rows), (False, False, True, False)) if rows else []
    children = any(step["kind"] == "child" and step["status"] == "running" for step in steps)
    told = (run["status"] == "running" and made) or (run["status"] == "waiting" and children)  # by the rows
    ending = [] if run["status"] in ENDED or told else [_standstill(run, now, look)]
    return stacked([clipped(Text("  ").append_text(line), look.width - 1) for line in [*made, *ending]])


def _standstill(run: dict[str, Any], now: float, look: Look) -> Text:
    """Returns the state of a run without a step under way, and the error after which it is tried again."""
    line = state(run, now, look)
    retrying = run["status"] == "scheduled" and run["failures"]
    return line.append(f"  {fault(run['failures'][-1]['error'])}", "red") if retrying else line


def step_line(step: dict[str, Any], now: float, look: Look) -> Text:
    """Returns a step that has ended as a line of its own, its error wrapped between words."""
    *head, tail = _live_row({"status": "", "progress": None}, step, now, look)
    line = Text("  ").append_text(Text("  ").join(one for one in head if one))
    return hanging(line.append("  "), [tail], look) if tail else line


def _live_row(run: dict[str, Any], step: dict[str, Any], now: float, look: Look) -> list[Text]:
    seconds = times.took(step, now)
    running = step["status"] == "running"
    tail = progress(run, look, TRACK, now) if running and run["status"] not in ENDED else Text()
    if step["status"] == "failed" or (running and step["attempt"] > 1):
        latest = step["error"] or (step["failures"] or [{"error": None}])[-1]["error"]
        tail = Text(f"try {step['attempt']}  " if step["attempt"] > 1 else "", "yellow").append(fault(latest), "red")
    if step.get("group") and not (running and run.get("job") == EACH):
        tail = Text(cell(step["group"]), "red" if step["status"] == "failed" else "dim")
    took = Text("" if seconds is None else times.span(seconds))
    return [mark(step["status"], look), Text(cell(step["key"])), took, tail]


def end_line(run: dict[str, Any], now: float, look: Look, told: Collection[str] = ()) -> Text:
    """Returns the line that says how a run ended; an error whose message was `told` is not repeated."""
    line = labelled(run["status"], look).append(f"  {short(run['id'])} {named(run)}")
    seconds = times.took(run, now)
    line.append(f"  {times.span(seconds)}" if seconds is not None else "", "dim")
    if run["error"]:
        return _with_fault(line, "  ", run["error"], look, told)
    if not run["reason"] or run["status"] == "succeeded":
        return line
    return line.append("  by you" if run["reason"] == "explicit" else f"  ({cell(run['reason'])})", "dim")


def _with_fault(line: Text, gap: str, error: dict[str, Any], look: Look, told: Collection[str]) -> Text:
    """Returns a line with an error behind it, unless that was told."""
    return line if error["message"] in told else hanging(line.append(gap, "dim"), [Text(fault(error), "red")], look)


def log_line(record: dict[str, Any], prefix: str, sgr: bool) -> str:
    """Returns a line of a log as text; with `sgr` its own colours are kept."""
    text = record["text"].rstrip("\r\n")
    return prefix + (coloured(text) if sgr else lines(text))
