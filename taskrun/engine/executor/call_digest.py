"""What a step calls, as far as that can be compared: the function or job by its name, its input and the like by a digest.

Kept with the step, so that a record answers only the same call. Function bodies and lines do not count. An argument that JSON
cannot hold, such as a client, counts by its type; the others beside it are compared all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any

import msgspec

from taskrun.declarations.calls import StepCall
from taskrun.model.codec import encode, to_plain
from taskrun.model.records import StepKind


def _comparable(value: Any) -> Any:
    try:
        return to_plain(value)
    except Exception:  # it cannot be compared, but for the name of a function
        return f"<{getattr(value, '__qualname__', type(value).__qualname__)}>"


_ENCODE = msgspec.json.Encoder(order="deterministic", enc_hook=_comparable).encode


def of_step(call: StepCall) -> str:
    """Returns what a `run`, `thread` or `shell` step calls."""
    if call.kind is StepKind.SHELL:
        words = call.command if isinstance(call.command, str) else list(call.command or ())
        whole = (words, str(call.cwd or ""), dict(call.env or {}), call.stdin)
        return _with_digest("shell", whole if call.compared is None else call.compared)
    fn, args, kwargs = call.fn, call.args, call.kwargs
    while isinstance(fn, partial):
        args, kwargs, fn = fn.args + args, {**fn.keywords, **kwargs}, fn.func
    name = _name(fn)
    return _with_digest(name, (args, kwargs)) if args or kwargs else name


def of_child(job: str, input: object, wait: bool = True) -> str:
    """Returns what a child's step calls, or what a step sends; one that is only started gives its handle, and no output."""
    job = job if wait else f"{job}.start"
    return _with_digest(job, input)


def of_wait(topic: str, match: object) -> str:
    """Returns what a wait for an event is for."""
    if callable(match):
        return f"{topic} {_name(match)}"
    return _with_digest(topic, match) if match else topic


def _name(fn: Callable[..., Any] | None) -> str:
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))


def _with_digest(name: str, value: object) -> str:
    try:
        data = _encoded(value)
    except Exception:  # such as keys of a mapping that JSON cannot hold
        return name
    return f"{name} {blake2b(data, digest_size=6).hexdigest()}"


def _encoded(value: object) -> bytes:
    try:
        return _ENCODE(value)
    except UnicodeEncodeError:  # such as the name of a file that is no UTF-8
        return encode(value, "").encode()
