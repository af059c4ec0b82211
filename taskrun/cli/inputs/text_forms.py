"""The forms in which texts are typed: durations, dates, paths, content of files. Each with how the help calls it."""

from __future__ import annotations

import json
import re
from binascii import b2a_base64
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import msgspec

from taskrun.cli.inputs.input_schema import Schema, kind
from taskrun.model import durations
from taskrun.model.durations import human_size
from taskrun.model.errors import DurationInvalid

MOST_INPUT = 16 * 1024 * 1024  # bytes of a file


class Form(msgspec.Struct, frozen=True):
    """A kind of text: its name in the help, an example, and how it is read; without `read` it is sent as it is."""

    metavar: str
    example: str = ""
    read: Callable[[str, Path], str] | None = None
    any_text: bool = False


def form_of(schema: Schema) -> Form | None:
    """Returns the form in which a text is written; None for plain text, and for what is not text."""
    if kind(schema) != "string":
        return None
    if schema.get("contentEncoding") == "base64":
        return _BASE64
    return _FORMS.get(str(schema.get("format")))


def _duration(text: str, folder: Path) -> str:
    """Returns a duration as ISO 8601, in which it may also be typed."""
    typed = text.strip()
    if re.fullmatch(r"[+-]?[Pp][0-9A-Za-z.,]+", typed):
        return typed
    sign, amount = ("-", typed[1:]) if typed.startswith("-") else ("", typed)
    try:
        number = float(amount) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", amount) else durations.seconds(amount)
        micros = timedelta(seconds=number) // timedelta(microseconds=1)
    except (DurationInvalid, OverflowError):
        units = "ms, s, m, h, d, w and y"
        raise ValueError(f'is not a duration, as in "90m", "1h 30m" or 5400 (seconds); the units are {units}') from None
    whole, part = divmod(micros, 1_000_000)
    return f"{sign}PT{whole}{f'.{part:06}'.rstrip('0') if part else ''}S"


def as_duration(iso: Any) -> str | None:
    """Returns an ISO 8601 duration in taskrun's own notation; None where that would not be exactly the same."""
    found = re.fullmatch(r"PT([0-9.]+)S", iso) if isinstance(iso, str) else None
    if found is None:
        return None
    shown = durations.human(float(found[1]))
    return shown if durations.seconds(shown) == float(found[1]) else None


def as_typed(choice: Any) -> str:
    """Returns a value as it is typed on a command line."""
    return choice if isinstance(choice, str) else json.dumps(choice)


def _time(text: str, folder: Path) -> str:
    typed = _padded(text)
    if ":" in typed:
        try:
            return time.fromisoformat(typed).isoformat()
        except ValueError:
            pass
    raise ValueError("is not a time, as in 10:30 or 10:30:15")


def _date_time(text: str, folder: Path) -> str:
    try:
        return datetime.fromisoformat(_padded(text)).isoformat()
    except ValueError:
        raise ValueError(
            'is not a date and time, as in 2026-11-26, "2026-11-26 10:30" or 2026-11-26T10:30:00+01:00'
        ) from None


def _date(text: str, folder: Path) -> str:
    try:
        return date.fromisoformat(text.strip()).isoformat()
    except ValueError:
        raise ValueError("is not a date, as in 2026-11-26") from None


def _padded(text: str) -> str:
    """Returns text in which an hour has two digits."""
    return re.sub(r"(?:^|(?<=[ T]))(?=[0-9]:)", "0", text.strip())


def _content(text: str, folder: Path) -> bytes:
    """Returns the bytes that `text`, `@FILE` or `@@text` mean."""
    if text.startswith("@") and not text.startswith("@@"):
        try:
            return read_file(folder / text[1:])
        except ValueError as fault:
            raise ValueError(f"cannot be read: {fault}") from None
    return (text[1:] if text.startswith("@") else text).encode("utf-8", "surrogateescape")


def _as_base64(text: str, folder: Path) -> str:
    return b2a_base64(_content(text, folder), newline=False).decode()


def _as_base64url(text: str, folder: Path) -> str:
    return _as_base64(text, folder).translate(_URLSAFE)


def _as_text(text: str, folder: Path) -> str:
    try:
        return _content(text, folder).decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8, and this field takes no other bytes") from None


_URLSAFE = str.maketrans("+/", "-_")
_BYTES = ("TEXT|@FILE", "text, or @ and a file")
_BASE64 = Form(*_BYTES, _as_base64, any_text=True)
_FORMS = {
    "duration": Form("DURATION", "as in 90m, or 5400 (seconds)", _duration),
    **dict.fromkeys(("time", "partial-time"), Form("TIME", "as in 10:30", _time)),
    "date-time": Form("DATETIME", 'as in 2026-11-26 or "2026-11-26 10:30"', _date_time),
    "date": Form("DATE", "as in 2026-11-26", _date),
    "binary": Form(*_BYTES, _as_text, any_text=True),
    "base64url": Form(*_BYTES, _as_base64url, any_text=True),
    **dict.fromkeys(("path", "file-path", "directory-path"), Form("PATH", any_text=True)),
}


# ---- files


def read_file(path: Path, most: int = MOST_INPUT) -> bytes:
    """Returns the content of a file named on a command line.

    Parameters:
        most: bytes that it may have.

    Raises:
        ValueError: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ValueError(str(error.strerror)) from None
    if len(content) > most:
        raise ValueError(f"over the limit of {human_size(most)}")
    return content
