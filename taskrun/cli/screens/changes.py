"""How `taskrun watch` reports a change of the code: a line for the change, and one for each problem."""

from __future__ import annotations

from typing import Any

from taskrun.cli import times
from taskrun.cli.lazy_imports import Text
from taskrun.cli.sanitize import cell, to_json
from taskrun.cli.screens.look import Look, stacked

STYLES = {"~": "yellow", "+": "green", "−": "red"}
TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict"}
SHOWN = 3  # files that one line names


def watching_screen(item: dict[str, Any], look: Look) -> Text:
    """Returns what is watched, and what is broken at the beginning."""
    places = ", ".join(cell(place) for place in item["places"])
    files = f"{places} ({_count(item['files'], 'file')}), " if item["files"] else ""
    head = f"watching {files}taskrun.toml · {_count(len(item['jobs']), 'job')}"
    return stacked([Text(head), *(problem_text(problem, look) for problem in item["problems"])])


def change_screen(item: dict[str, Any], now: float, look: Look) -> Text:
    """Returns a change: the files, and the result of reloading them."""
    line = Text(times.clock(item["at"], now) + " ", "dim")
    line.append_text(Text(" ").join(_file(file) for file in item["files"][:SHOWN]))
    if len(item["files"]) > SHOWN:
        line.append(f" and {len(item['files']) - SHOWN} more")
    if item["kind"] == "kept":
        first, *others = item["problems"] or [{"text": "the code could not be loaded"}]
        line.append("  ").append_text(problem_text({**first, "kept": True}, look))
        return stacked([line, *(problem_text(problem, look) for problem in others)])
    if item["kind"] == "restart":
        return line.append("  → restarting, since these settings need a new daemon")
    line.append("  → " + " · ".join([f"reloaded in {round(item['took'] * 1000)} ms", *_effects(item)]))
    return stacked([line, *(problem_text(problem, look) for problem in item["problems"])])


def problem_text(problem: dict[str, Any], look: Look) -> Text:
    """Returns what is wrong with a file, with its line."""
    kind, _, text = str(problem.get("text") or "").partition(": ")
    file, line = cell(str(problem.get("file") or "")), problem.get("line")
    place = f"{file}, line {line}" if file and line else file
    shown = cell(f"{kind}: {text}" if text else kind)
    kept = " — keeping the last good version" if problem.get("kept") else ""
    return Text.assemble(("✗" if look.utf8 else "error:", "red"), " ", f"{place}: " if place else "", shown, kept)


def _file(file: dict[str, Any]) -> Text:
    return Text.assemble((file["how"], STYLES.get(file["how"], "")), f" {cell(file['file'])}")


def _effects(item: dict[str, Any]) -> list[str]:
    """Returns how the jobs have changed, and which runs that concerns."""
    added = [cell(name) for name in item["added"]]
    news = [f"new {'job' if len(added) == 1 else 'jobs'} {', '.join(added)}"] if added else []
    news += [f"{cell(gone['job'])} is gone" + _held(gone["held"]) for gone in item["gone"]]
    changes = ((one["job"], input_changes(one["before"], one["after"])) for one in item["inputs"])
    news += [f"{cell(job)} input changed: {', '.join(found)}" for job, found in changes if found]
    flying = item["in_flight"]
    verb = "goes" if flying == 1 else "go"
    return [*news, *([f"{_count(flying, 'run')} in flight {verb} on with the new code"] if flying else [])]


def _held(count: int) -> str:
    return f" ({_count(count, 'queued run')} held)" if count else ""


def input_changes(before: Any, after: Any) -> list[str]:
    """Returns the fields of an input that were added, removed or changed: `+ bitrate: int = 320`."""
    old, new = _fields(before), _fields(after)
    gone = [f"− {name}" for name in old if name not in new]
    added = [f"+ {name}: {shown}" for name, shown in new.items() if name not in old]
    changed = [f"~ {name}: {old[name]} → {shown}" for name, shown in new.items() if name in old and old[name] != shown]
    return [*added, *gone, *changed]


def _fields(schema: Any) -> dict[str, str]:
    properties = (schema or {}).get("properties") or {}
    return {cell(name): _typed(field) for name, field in properties.items()}


def _typed(field: dict[str, Any]) -> str:
    default = f" = {cell(to_json(field['default']))}" if "default" in field else ""
    return _type(field) + default


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " | ".join(_type(one) for one in field["anyOf"])
    if "enum" in field:
        return " | ".join(cell(to_json(one)) for one in field["enum"])
    if "$ref" in field:
        return cell(str(field["$ref"]).rpartition("/")[2])
    named = str(field.get("type", "any"))
    items = f"[{_type(field['items'])}]" if isinstance(field.get("items"), dict) else ""
    return TYPES.get(named, "None" if named == "null" else named) + items


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
