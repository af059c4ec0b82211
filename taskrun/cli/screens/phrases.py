"""How a run is described on every screen: its state, current step, progress and input."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from taskrun.cli import times
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import LONGEST, brief, cell, cut
from taskrun.cli.screens.look import Look, bar, labelled
from taskrun.model.byte_escapes import restored
from taskrun.model.names import EACH, EXEC, NOTIFY

BAR = 5
LEAST_PATH = 8  # characters of a path that are always shown
COMMAND_FAILED = "taskrun.CommandFailed"
SHORT_ID = 6
REASON = 60  # characters of why a run is held, in a table
UNTYPED: Mapping[str, Any] = {  # what a command of `exec` has without being told
    "env": {},
    "group": None,
    "slots": 1,
    "retry": 0,
    "timeout": None,
    "priority": 0,
    "rerun": True,
}
_EACH: Mapping[str, Any] = {"fail_after": None}  # what many inputs have without being told
ENDED = frozenset({"succeeded", "failed", "cancelled", "discarded"})


def short_ids(ids: list[str]) -> dict[str, str]:
    """Returns the first characters of each id: 6, or as many as it takes for all of them to differ."""
    for length in range(SHORT_ID, max(map(len, ids), default=SHORT_ID)):
        if len({one[:length] for one in ids}) == len(set(ids)):
            return {one: one[:length] for one in ids}
    return {one: one for one in ids}


def short(run_id: str) -> str:
    """Returns the part of an id that a person types."""
    return run_id[:SHORT_ID]


def state(run: dict[str, Any], now: float, look: Look) -> Text:
    """Returns the state of a run in words."""
    if run.get("cancelling"):
        return labelled("cancelled", look).append(" soon")
    if run.get("held") and run["status"] == "running":
        return labelled("interrupted", look)
    wake = times.moment(run.get("wake_at"))
    left = "" if wake is None else times.left(max(0.0, wake - now))
    if run["status"] == "scheduled":
        retrying = run["reason"] in ("retry", "backoff")
        return labelled("retry", look, left) if retrying else labelled("scheduled", look, left and f"in {left}")
    if run["status"] == "waiting":
        return labelled("waiting", look, left)
    if run["status"] == "failed" and run["reason"]:
        return labelled("failed", look, f"({cell(run['reason'])})")
    if run["status"] == "paused" and run.get("pausing") is None and run["reason"] == "exhausted":
        return labelled("paused", look, "(retries used up)")
    return labelled(run["status"], look)


def current(run: dict[str, Any], look: Look) -> Text:
    """Returns the current step of a run, with its tries and the run's progress; or why the run is held."""
    if run["job"] == EACH and (bars := progress(run, look)):
        return bars
    step = run.get("step")
    under_way = run.get("steps_under_way") or 0
    several = step is not None and under_way > 1 and run["status"] not in ENDED
    if run.get("why") and not several:
        return Text(cut(_brief_reason(reason(run["why"][0], run)), REASON), "dim")
    if step is None:
        count = run.get("steps_ended")
        words = f"{count} step{'s' if count != 1 else ''}" if count and run["status"] in ENDED else ""
        return Text(words, "dim") if words else progress(run, look)
    text = Text(cell(step["name"]))
    if several:
        ended = run.get("steps_ended") or 0
        text.append(f" {ended} of {ended + under_way}", "blue")
    if step["attempt"] > 1:
        text.append(f" (try {step['attempt']})", "yellow")
    if run["status"] == "running" and step["key"] in run.get("adopted", ()):
        text.append(" (adopted)", "yellow")
    bars = progress(run, look) if run["status"] not in ENDED else Text()
    return text.append(" ").append_text(bars) if bars else text


def _brief_reason(text: str) -> str:
    """Returns why a run is held, without what its row says in other columns."""
    for said in ("it ", "was triggered for later: it ", "its retries are used up; "):
        text = text.removeprefix(said)
    return f"for {text.partition(' for ')[2]}" if text.startswith("has waited ") else text


def progress(run: dict[str, Any], look: Look, width: int = BAR, now: float = 0.0) -> Text:
    """Returns the progress of a run as a bar, or as a count where the total is not known.

    Parameters:
        width: columns of the bar; a wider one also has the count and what is left.
    """
    found = run["progress"] or _nothing_ended(run)
    if not found or found["done"] is None:
        return Text()
    note = cell(found["note"] or "")
    total = found["total"]
    if not total:
        return Text(f"{found['done']:g} {note}".rstrip(), "blue")
    fraction = found["done"] / total
    count = f"{found['done']:g}/{total:g}"
    if f"{note} ".startswith(f"{count} ") and run["job"] == EACH:  # which says all that there is to say
        return Text(f"{bar(fraction, width, look)} {note}", "blue")
    shown = Text(f"{bar(fraction, width, look)} {min(fraction, 1.0):4.0%}", "blue")
    if width > BAR and count not in note:
        shown.append(f"  {count}", "blue")
    shown.append(f"  {note}" if note else "", "dim")
    return shown.append(_left(run, fraction, now), "dim") if width > BAR else shown


def _nothing_ended(run: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the progress of a run of many inputs none of which has ended."""
    total = run["input"].get("total") if run["job"] == EACH and isinstance(run["input"], dict) else None
    return {"done": 0, "total": total, "note": f"0/{total}"} if isinstance(total, int) and total else None


def _left(run: dict[str, Any], fraction: float, now: float) -> str:
    """Returns roughly how long a run will still take at the pace that it has had so far."""
    started = times.moment(run.get("started_at"))
    if started is None or run["status"] != "running" or not 0 < fraction < 1:
        return ""
    return f" · about {times.left((now - started) * (1 - fraction) / fraction)} left"


def tried(run: dict[str, Any]) -> str:
    """Returns which attempt it is, if it is not the first; one after a resume is none of those that its retries allow."""
    if run["attempt"] == 1:
        return ""
    allowed = f" of {run['attempts']}" if run["attempt"] <= run["attempts"] else ""
    return f"attempt {run['attempt']}{allowed}"


def given(run: dict[str, Any], width: int | None = None, defaults: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Returns an input as `path=song.mp3 dry`.

    Parameters:
        width: columns that there are; long paths lose their beginning to fit.
        defaults: values of fields that are left out.
    """
    fields = run["input"]
    if not isinstance(fields, dict):
        return brief(fields)
    if run.get("job") == EXEC and "command" in fields:
        return cell(cut(command_line(fields["command"]), LONGEST))
    if run.get("job") == NOTIFY and {"title", "to"} <= fields.keys():
        return cell(cut(f"{fields['title']}, by {fields['to']}", LONGEST))
    defaults = {**defaults, **(_EACH if run.get("job") == EACH else {})}
    shown = {name: item for name, item in fields.items() if name not in defaults or defaults[name] != item}
    parts = [cell(name) if item is True else f"{cell(name)}={_argument(item)}" for name, item in shown.items()]
    over = len(" ".join(parts)) - (width or LONGEST)
    for at, (name, item) in enumerate(shown.items()):
        if width is not None and over > 0 and _is_path(item):
            room = max(len(cell(item)) - over, LEAST_PATH, width // 2)
            over -= max(0, len(cell(item)) - room)
            parts[at] = f"{cell(name)}={_tail(cell(item), room)}"
    return " ".join(parts)


def typed(run: dict[str, Any]) -> Any:
    """Returns an input as it was given: of a command only what was typed."""
    fields = run["input"]
    if run["job"] != EXEC or not isinstance(fields, dict):
        return fields
    return {name: item for name, item in fields.items() if name != "path" and item != UNTYPED.get(name, ...)}


def is_delivered(run: dict[str, Any]) -> bool:
    """Whether a run is a notification that has arrived, which is no news in a list."""
    return bool(run["job"] == NOTIFY and run["status"] == "succeeded")


def named(run: dict[str, Any]) -> str:
    """Returns what a run is called: its own name, or that of its job."""
    return cell(run.get("name") or run["job"])


def command_line(command: str | list[str]) -> str:
    """Returns a command as it would be typed; a text is for the shell as it is."""
    return command if isinstance(command, str) else shlex.join(map(restored, command))


def _is_path(item: Any) -> bool:
    """Whether a value looks like a path or an address, whose end tells more than its beginning."""
    return isinstance(item, str) and "/" in item and "\n" not in item and (" " not in item or item[0] in "/~.")


def _argument(item: Any) -> str:
    """Returns a value, quoted where it could not be told from its neighbours."""
    text = brief(item)
    return f'"{text}"' if isinstance(item, str) and (not text or " " in text) else text


def _tail(path: str, room: int) -> str:
    """Returns the end of a path, which tells more than its beginning."""
    return path if len(path) <= room else "…" + path[1 - room :]


def fault(error: dict[str, Any] | None) -> str:
    """Returns an error as one line; of a command its own last words, and not its text."""
    if error is None:
        return ""
    if error["type"] == COMMAND_FAILED:
        *_, said, code = last_words(error)
        return cell(f"{said} ({code})" if said else f"the command ended with {code}")
    message = error["message"].strip().split("\n", 1)[0]
    kind = error["type"].removeprefix("taskrun.")
    return cell((message if kind == "Fatal" else f"{kind}: {message}") if message else kind)


def reason(text: str, run: dict[str, Any]) -> str:
    """Returns why a run is held as one line, the errors in it as every screen says them."""
    failures = [failure for one in [run, *run.get("steps", [])] for failure in one["failures"]]
    for error in [run["error"], *(failure["error"] for failure in failures)]:
        if error is not None:
            text = text.replace(f"{error['type']}: {error['message']}", fault(error))
    return cell(text)


def last_words(error: dict[str, Any]) -> tuple[str, str, str]:
    """Returns of a command that failed its text, the last line that it printed, and how it ended."""
    head, *printed = error["message"].strip().splitlines() or [""]
    command, _, code = head.rpartition(" ended with ")
    return command, (printed[-1].strip() if printed else ""), code
