"""The jobs and pipes that there are, and one job's options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taskrun.cli import times
from taskrun.cli.inputs.input_schema import InputSchema
from taskrun.cli.inputs.usage import listing, usage
from taskrun.cli.lazy_imports import Text, cell_len
from taskrun.cli.project_option import for_project
from taskrun.cli.sanitize import cell, cut, to_json, value
from taskrun.cli.screens.look import GAP, Look, clipped, columns, fitted, hanging, stacked, widest
from taskrun.model.durations import human

DURATIONS = frozenset({"duration", "initial", "key_ttl", "max", "period", "timeout"})  # options, and parts of them
FIELDS = ("name", "triggers", "schedules", "file", "line")


def jobs_table(jobs: Sequence[dict[str, Any]], look: Look) -> Text:
    """Returns the jobs as a table."""
    rows = [[Text(head, "dim") for head in ("JOB", "OPTIONS", "STARTED BY", "FILE")]]
    rows += [_row(job) for job in jobs]
    widths = widest(rows)
    widths[1] = min(widths[1], max(12, look.width - sum(widths) + widths[1] - 6))
    return stacked([clipped(line, look.width) for line in columns(rows, widths, (False,) * 4)])


def _row(job: dict[str, Any]) -> list[Text]:
    name = Text(cell(job["name"]), "bold").append(" (paused)" if job.get("paused") else "", "yellow")
    options = usage(InputSchema(job.get("input_schema")))
    return [name, Text(cell(options)), Text(", ".join(started_by(job))), Text(_place(job), "dim")]


def started_by(job: dict[str, Any]) -> list[str]:
    """Returns what starts a job: its triggers and schedules."""
    return [_word(source) for source in [*(job.get("triggers") or []), *(job.get("schedules") or [])]]


def _word(source: Any) -> str:
    if not isinstance(source, dict):
        return value(source)
    named = source.get("cron") or source.get("topic") or source.get("pipe") or source.get("job")
    return value(named if named is not None else source)


def _place(job: dict[str, Any]) -> str:
    return cell(f"{job.get('file') or ''}:{job.get('line') or ''}".strip(":"))


def jobs_tsv(jobs: Sequence[dict[str, Any]]) -> str:
    """Returns the jobs as tab-separated lines."""
    rows = [[cell(job["name"]), cell(usage(InputSchema(job.get("input_schema")))), *_tails(job)] for job in jobs]
    return "".join("\t".join(cut(part) for part in row) + "\n" for row in rows)


def _tails(job: dict[str, Any]) -> list[str]:
    return [", ".join(started_by(job)), _place(job)]


def refusals(job: dict[str, Any], now: float, lasting: bool = False) -> list[str]:
    """Returns what the triggers of a job did not start, each as a line: never, or when an event or slot was refused last.

    Parameters:
        lasting: only those that have not started it since.
    """
    found = [one for one in job.get("refused") or () if not (lasting and one["over"])]
    return [f"{_named(one['trigger'])} {_what_was_refused(one, now)}" for one in found]


def _named(trigger: str) -> str:
    return cell(trigger.replace(":", " ", 1))


def _what_was_refused(refusal: dict[str, Any], now: float) -> str:
    text = cell(refusal["text"])
    if refusal["at"] is None:
        return f"can never start it: {text}"
    ago = times.age(max(0.0, now - (times.moment(refusal["at"]) or now)))
    return f"did not start it {ago} ago: {text}" + ("; it has since" if refusal["over"] else "")


def usage_line(command: str, name: str, schema: InputSchema) -> str:
    """Returns how a command is typed for a job or pipe."""
    words = ["taskrun", command, cell(name), *(["CRON"] if command == "schedule add" else []), cell(usage(schema))]
    return " ".join(filter(None, words))


def job_screen(
    job: dict[str, Any], look: Look, command: str = "start", own: Sequence[tuple[str, str]] = (), now: float = 0.0
) -> Text:
    """Returns one job or pipe: its usage, its options, those of the command itself (`own`), and where it is defined."""
    schema = InputSchema(job.get("input_schema"))
    line = usage_line(command, job["name"], schema)
    parts = [hanging(Text("usage: "), [Text(for_project(line, look.project))], look)]
    if job.get("description"):
        parts += [Text(f"  {cell(job['description'])}")]
    fields = listing(schema)
    width = max((cell_len(cell(name)) for name, _ in [*fields, *own]), default=0)
    parts += [Text(), *_options(fields, width, look)] if fields else []
    parts += [Text(), Text(f"of taskrun {command} itself:"), *_options(own, width, look), Text()] if own else []
    parts += [Text(f"runs        {cell(command)}") for command in job.get("commands") or ()] if not own else []
    parts += [Text(f"started by  {', '.join(started_by(job))}")] if started_by(job) else []
    parts += [hanging(Text("refused     "), [Text(line)], look) for line in refusals(job, now)] if not own else []
    if job.get("options") and not own:
        named = " · ".join(_option(name, given) for name, given in job["options"].items())
        parts += [Text(f"options     {cell(named)}", "dim")]
    parts += [Text(f"defined at  {_place(job)}", "dim")] if _place(job) else []
    return stacked(parts)


def _option(name: str, given: Any) -> str:
    if not isinstance(given, dict):
        return f"{name} {_amount(name, given)}"
    return f"{name} {' '.join(f'{part}={_amount(part, one)}' for part, one in given.items() if one is not None)}"


def _amount(name: str, given: Any) -> str:
    return human(given) if name in DURATIONS and isinstance(given, int | float) else value(given)


def _options(rows: Sequence[tuple[str, str]], width: int, look: Look) -> list[Text]:
    """Returns options as lines, what is said of them wrapped between words."""
    heads = [(Text(f"  {cell(name)}"), remark) for name, remark in rows]
    whole = width + GAP + 2
    return [
        hanging(fitted(head, whole), [Text(cell(remark), "dim")], look) if remark else head for head, remark in heads
    ]


def with_relative_file(described: dict[str, Any], root: Path) -> dict[str, Any]:
    """Returns a job or problem with its file relative to the project's folder."""
    file = Path(described.get("file") or "")
    return {**described, "file": str(file.relative_to(root))} if file.is_relative_to(root) else described


def problem_line(problem: Any) -> str:
    """Returns what is wrong with a job file as a line."""
    if not isinstance(problem, dict):
        return value(problem)
    place = f"{problem.get('file') or ''}:{problem.get('line') or ''}".strip(":")
    text = problem.get("message") or problem.get("text") or to_json(problem)
    if problem.get("kept"):
        text += "; its last good version is used"
    if problem.get("holding"):
        text += "; until that is fixed, no changed file is loaded"
    return cell(f"{place}: {text}" if place else text)
