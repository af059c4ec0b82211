"""The protocol between client and daemon: frames of JSON, first a hello of each side, then requests and their answers.

A request is `{id, op, …}`, with the parameters of the operation as further fields; the answer is `{id, ok, value | error}`. An
operation that streams answers with any number of `{id, item}` and then `{id, end}`, or an error; `{id}` alone is a sign of
life. Both sides ignore unknown fields.
"""

from __future__ import annotations

from typing import Any

import msgspec

from taskrun.model.codec import rebuild
from taskrun.model.errors import StepFailed
from taskrun.model.records import ErrorRecord

PROTOCOL = (1, 1)  # the oldest and the newest version that this side speaks


class Hello(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first frame of each side. `error`: why the daemon refuses this client."""

    protocol: tuple[int, int]
    version: str = ""
    pid: int = 0
    error: ErrorRecord | None = None


class Request(msgspec.Struct, frozen=True):
    """The fields of every request; the operation reads the rest of the frame."""

    id: int
    op: str


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One frame of an answer, as the client reads it."""

    id: int = 0  # 0: about the connection, not about one request
    ok: bool = False
    value: Any = None
    item: Any = msgspec.UNSET
    end: bool = False
    error: ErrorRecord | None = None


def common_version(ours: tuple[int, int], theirs: tuple[int, int]) -> int | None:
    """Returns the newest version that both sides speak."""
    newest = min(ours[1], theirs[1])
    return newest if newest >= max(ours[0], theirs[0]) else None


def mismatch(daemon: Hello, client: Hello) -> str:
    """Says which of the two to upgrade."""
    if daemon.protocol[1] < client.protocol[0]:
        return f"the daemon (taskrun {daemon.version}) is older than this command ({client.version}): taskrun daemon restart"
    return f"this command (taskrun {client.version}) is older than the daemon ({daemon.version}): upgrade it"


def remote_error(record: ErrorRecord) -> Exception:
    """Returns the error that the other side raised, as itself where it is one that this side knows."""
    error = rebuild(record, "")
    if isinstance(error, StepFailed) and record.type != "taskrun.StepFailed":
        return RuntimeError(f"{record.type}: {record.message}")
    return error
