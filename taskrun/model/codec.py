"""The one encoding of everything that goes through the journal: JSON text, by msgspec; never pickle.

Called by the executor for results and inputs, by the core for records, by the command line for JSON from outside. What
JSON cannot hold is an error that names the value, never a silent `null`.
"""

from __future__ import annotations

import builtins
import json
import math
import numbers
import re
import sys
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NoReturn, Self

import msgspec
from msgspec.structs import replace

from taskrun.model import errors, escaped_values, pydantic_models, typed
from taskrun.model.durations import human_size
from taskrun.model.errors import InputInvalid, NotEncodable, OutputInvalid, PayloadTooLarge, StepFailed
from taskrun.model.fields import all_fields
from taskrun.model.further_keys import Further
from taskrun.model.problems import Misfit, named
from taskrun.model.records import ErrorRecord
from taskrun.model.stored_text import storable

MAX_PAYLOAD = 4 * 1024 * 1024
MAX_DEPTH = 64
_MAX_DIGITS = 4300  # of an int: Python's own limit between text and int
_MAX_MESSAGE = 10_000
_MAX_TRACEBACK = 50_000


# ---- values


def encode(value: Any, what: str, limit: int | None = None) -> str:
    """Returns a value as JSON text.

    Parameters:
        value: plain data, dataclasses, datetimes, bytes, sets, `Decimal`, `UUID`, enums, paths, models …
        what: what it is, for the message, such as `output of step fetch`.
        limit: the largest size in bytes.

    Raises:
        NotEncodable: JSON cannot hold it; names the part and its type.
        PayloadTooLarge: it is over the limit.
    """
    if value is None:
        return "null"
    if isinstance(value, msgspec.Raw):  # it is JSON text
        return check_size(bytes(value), what, limit).decode()
    try:
        raw = _raw(value)
        lossy = b"null" in raw and not _finite(value, raw)
    except Exception as error:  # a model's own code may raise anything
        raise _not_encodable(value, what, error) from error
    if lossy:
        raise _not_encodable(value, what, ValueError("JSON has no NaN or infinity"))
    return check_size(raw, what, limit).decode()


def _raw(value: Any) -> bytes:
    """Returns a value as JSON, its undecoded bytes escaped."""
    try:
        raw = _ENCODER.encode(value)
        if escaped_values.MARK not in raw:
            return raw
    except UnicodeEncodeError:
        pass
    return _ENCODER.encode(escaped_values.escape_value(value, _builtin))


def check_size(raw: bytes, what: str, limit: int | None) -> bytes:
    """Returns JSON that is within the limit.

    Raises:
        PayloadTooLarge: it is not.
    """
    if limit is not None and len(raw) > limit:
        raise PayloadTooLarge(f"{what} is too large: {human_size(len(raw))}, the limit is {human_size(limit)}")
    return raw


def decode(text: str, kind: Any = Any) -> Any:
    """Returns JSON text of `encode` as plain data, or as a value of the type `kind`. A `TypedDict` keeps further keys.

    Raises:
        OutputInvalid: it does not fit the type.
    """
    if kind is Any:
        return None if text == "null" else plain(text)
    try:
        return typed.read(text, kind, Further.KEEP)
    except Misfit as misfit:
        raise OutputInvalid(f"does not fit {named(kind)}: {misfit}") from None


def plain(text: str | bytes) -> Any:
    """Returns JSON text of the journal as plain data."""
    data = _DECODER.decode(text)
    escaped = not text.isascii() and escaped_values.may_have_escapes(text)
    return escaped_values.restore_value(data) if escaped else data


def to_plain(value: Any) -> Any:
    """Returns what msgspec does not write by itself as something that it does; raises TypeError for what JSON cannot hold."""
    for kinds, convert in _PLAIN:
        if isinstance(value, kinds):
            return convert(value)
    if pydantic_models.writes(value):
        return pydantic_models.plain(value)
    raise TypeError


class JsonNumber(float):
    """A number that was written with other digits than a float writes: it is encoded as it was written."""

    def __new__(cls, text: str) -> Self:
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str


# msgspec refuses subclasses of str and float; numpy's ints are Integral.
_PLAIN: list[tuple[type, Any]] = [
    (PurePath, str),
    (str, str.__str__),
    (JsonNumber, lambda number: msgspec.Raw(number.text.encode())),
    (float, float.__float__),
    (numbers.Integral, int),
    (Mapping, dict),
    (deque, list),
]
_ENCODER = msgspec.json.Encoder(enc_hook=to_plain)
_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def _finite(value: Any, raw: bytes) -> bool:
    """Says whether no NaN or infinity became a null. What reads back equal, the common case, needs no walk."""
    data = _builtin(value)
    return bool(_DECODER.decode(raw) == data) or _all_finite(data)


def _builtin(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=_to_builtin, str_keys=True)


def _to_builtin(value: Any) -> Any:
    return (
        float(value) if isinstance(value, JsonNumber) else None if isinstance(value, msgspec.Raw) else to_plain(value)
    )


def _all_finite(data: Any) -> bool:
    if isinstance(data, float):
        return math.isfinite(data)
    if isinstance(data, dict):
        return all(map(_all_finite, data.values()))
    return not isinstance(data, (list, tuple, set, frozenset)) or all(map(_all_finite, data))


# ---- which part of a value is at fault


def _not_encodable(value: Any, what: str, error: Exception) -> NotEncodable:
    if isinstance(error, RecursionError):
        kind = named(type(value))
        return NotEncodable(f"{what} cannot be kept as JSON: a {kind} that holds itself, or is nested too deeply")
    path, part = _culprit(value)
    reason = _reason(part, error)
    fault = f"{path or 'it'} is of type {named(type(part))}" + (f": {reason}" if reason else "")
    return NotEncodable(f"{what} cannot be kept as JSON: {fault}")


def _reason(part: Any, error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "text with an unpaired surrogate"
    if isinstance(part, int):
        return f"more than {_MAX_DIGITS} digits"
    if isinstance(part, Mapping):
        return "a key that is neither text nor a number"
    return message_of(error).replace("`", "")


def _culprit(value: Any) -> tuple[str, Any]:
    """Returns path and value of the innermost part that cannot be encoded."""
    path = ""
    while found := next(((label, part) for label, part in _parts(value) if not _encodable(part)), None):
        path, value = path + found[0], found[1]
    return path.removeprefix("."), value


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return ((f".{key}", part) for key, part in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ((f"[{index}]", part) for index, part in enumerate(value))
    names = [field.name for field in all_fields(type(value)) or ()]
    return ((f".{name}", getattr(value, name, None)) for name in names)


def _encodable(value: Any) -> bool:
    try:
        raw = _raw(value)
        return b"null" not in raw or _finite(value, raw)
    except Exception:
        return False


# ---- exceptions


class RecordedError(Exception):
    """An error of another process, as the record that was made of it there.

    Stands for an error that cannot be rebuilt here; of one that can it is the cause.

    Parameters:
        record: what is known of it.
        rebuilt: the error that it is the cause of.
    """

    def __init__(self, record: ErrorRecord, rebuilt: BaseException | None = None) -> None:
        super().__init__(record)
        self.record = record
        self.rebuilt = rebuilt

    def __str__(self) -> str:
        return f"{self.record.type}: {self.record.message}\n{self.record.traceback}"


def encode_error(error: BaseException, limit: int = MAX_PAYLOAD) -> ErrorRecord:
    """Returns an exception as the journal keeps it. Never raises, whatever the exception does.

    Parameters:
        error: the exception.
        limit: its `args` are kept up to so many bytes.
    """
    origin = error.__cause__
    if isinstance(error, RecordedError):
        return error.record
    if isinstance(origin, RecordedError) and origin.rebuilt is error:
        return origin.record
    return ErrorRecord(
        type=_type_name(type(error)),
        message=message_of(error),
        traceback=_traceback(error),
        args=_args(error, limit),
        where=_where(error),
    )


def shortened(record: ErrorRecord, limit: int) -> ErrorRecord:
    """Returns an error whose `args` have at most so many characters: long texts in them are cut; else it has none."""
    if record.args is None or len(record.args) <= limit:
        return record
    args = plain(record.args)
    short = encode([_clean(arg, limit // 4) if isinstance(arg, str) else arg for arg in args], "args")
    return replace(record, args=short if len(short) <= limit else None)


def rebuild(record: ErrorRecord, step: str) -> Exception:
    """Returns the original exception where its type is loaded and takes its `args` back, else `StepFailed`."""
    kind = _loaded(record.type)
    if kind is not None and record.args is not None:
        try:
            error = kind(*decode(record.args))
        except BaseException:  # a constructor that wants something else, or does what it likes
            error = None
        if isinstance(error, Exception) and message_of(error) == record.message:
            return error
    return StepFailed(step, record.type, record.message, record.traceback)


def error_text(record: ErrorRecord) -> str:
    """Returns the JSON text of an error record."""
    return _ENCODER.encode(record).decode()


def error_from(text: str) -> ErrorRecord:
    """Returns the error record of a JSON text."""
    return msgspec.json.decode(text, type=ErrorRecord)


_PACKAGE = str(Path(__file__).parents[1]) + "/"
_LIBRARIES = (str(Path(traceback.__file__).parent) + "/", "<frozen ")  # `sysconfig` takes ten times as long to be asked
_INSTALLED = ("/site-packages/", "/dist-packages/")


def _type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def message_of(error: BaseException) -> str:
    """Returns the text of an exception, cut to what can be shown; never raises."""
    try:
        return _clean(str(error), _MAX_MESSAGE)
    except BaseException as inner:  # `__str__` is code of the user, and may raise anything
        return f"(its text is not available: str() raised {type(inner).__name__})"


def _clean(text: str, most: int) -> str:
    if len(text) > most:
        text = f"{text[: most // 2]} … {len(text) - most} characters left out … {text[-most // 2 :]}"
    return storable(text)


def _args(error: BaseException, limit: int) -> str | None:
    """Takes them as pickle would, since an OSError keeps its file name out of `args`."""
    try:
        reduced = error.__reduce__()
        usual = isinstance(reduced, tuple) and reduced[0] is type(error)
        return encode(list(reduced[1] if usual else error.args), "args", limit)
    except Exception:
        return None


def _traceback(error: BaseException) -> str:
    try:
        told = traceback.TracebackException.from_exception(error, compact=True)
        _without_own_frames(told)
        return _clean("".join(told.format()), _MAX_TRACEBACK)
    except Exception:  # a source line or a repr of user code went wrong
        return ""


def _without_own_frames(told: traceback.TracebackException) -> None:
    told.stack[:] = [frame for frame in told.stack if not frame.filename.startswith(_PACKAGE)]
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if other is not None:
            _without_own_frames(other)


def _where(error: BaseException) -> str:
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    foreign = [(code, line) for code, line in frames if not code.co_filename.startswith((_PACKAGE, *_LIBRARIES))]
    users = [(code, line) for code, line in foreign if not any(part in code.co_filename for part in _INSTALLED)]
    for code, line in (users or foreign)[-1:]:
        return _clean(f"{code.co_filename}:{line} in {code.co_name}", _MAX_MESSAGE)
    return ""


def _loaded(name: str) -> type[Exception] | None:
    """Finds an exception class in what is imported already: a journal never makes code run by a name."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, -1, -1):
        found: Any = _module(".".join(parts[:cut]))
        for part in parts[cut:]:
            found = getattr(found, "__dict__", {}).get(part)
        if isinstance(found, type) and issubclass(found, Exception):
            # A coroutine cannot raise these: Python turns them into a RuntimeError.
            return None if issubclass(found, (StopIteration, StopAsyncIteration)) else found
    return None


def _module(name: str) -> Any:
    return {"": builtins, "taskrun": errors}.get(name) or sys.modules.get(name)


# ---- JSON from outside


def parse_json(text: str | bytes, what: str) -> Any:
    """Returns JSON from outside as plain data, strictly.

    Raises:
        InputInvalid: not UTF-8, not JSON, nested deeper than 64, a NaN, an infinity, an overlong int, a duplicate key,
            an unpaired surrogate; names `what`.
    """
    try:
        raw = text.encode() if isinstance(text, str) else bytes(text)
        _refuse_depth(raw)
        data = _STRICT.decode(raw.decode())
        _raw(data)  # finds what JSON escapes can say and text cannot: "\ud800"
    except UnicodeError:
        raise InputInvalid(what, [("", "not valid UTF-8, or it has an unpaired surrogate")]) from None
    except ValueError as error:
        raise InputInvalid(what, [("", f"not valid JSON: {error}")]) from None
    return data


# One string, or what is left of an unended one; then all but brackets goes, and the kinds of brackets become one.
_STRING = rb'(?s)"(?:[^"\\]|\\.)*+"?'
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def _refuse_depth(raw: bytes) -> None:
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    nested = re.sub(_STRING, b"", raw).translate(_BRACKETS, _OTHERS)
    for _ in range(MAX_DEPTH):
        nested = nested.replace(b"[]", b"")
    if nested.count(b"[") > 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH}, or brackets that do not match")


def _number(text: str) -> float:
    if math.isfinite(value := float(text)):
        return value if repr(value) == text else JsonNumber(text)
    raise ValueError(f"the number {text[:40]} is too large")


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"an int of more than {_MAX_DIGITS} digits")
    return int(text)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:40]!r} appears twice")
    return made


_STRICT = json.JSONDecoder(
    parse_float=_number, parse_int=_whole, parse_constant=_no_constant, object_pairs_hook=_unique
)
