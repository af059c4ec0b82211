"""The file of a command that survives its worker: what it is, who supervises it, what it prints, how it ends.

The supervisor holds a lock on the file as long as it lives, so that at every instant it can be decided how the command stands:

    no supervisor         not begun
    locked                alive (or about to begin)
    an END                ended, with that code
    none of these         cut off: its supervisor is gone, with the machine or alone

The first block has the facts, which whoever begins the command writes, the two processes, which the supervisor writes, marks of
the readers, and whether the command is to end. Behind it records are appended, each written whole or cut off by a death, which
makes it the last: lines, excerpts of both streams, the END. A command that is run again goes on in the same file, so that a
position in it means the same for ever. Standard library only, since supervisors use it.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

VERSION = 1
START = 4096  # of the first record; the block before it has, in this order:
FACTS, PROCESSES, MARKS, ENDING = 0, 3584, 3840, 4032
OUT, ERR, STDOUT, STDERR, END = range(1, 6)  # kinds of records: lines, excerpts, the end
STREAMS = {OUT: "stdout", ERR: "stderr"}
CHUNK = 256 * 1024  # bytes read at once
_RECORD = struct.Struct("<BdI")  # kind, moment, bytes that follow
_MARKS = struct.Struct("<Qd?")
_PROCESSES = struct.Struct("<QQQQ")


class Record(NamedTuple):
    """What was appended at one time."""

    kind: int
    at: float
    text: str
    after: int  # position behind it


class Marks(NamedTuple):
    """What readers write into the file.

    Parameters:
        read: position up to which the output is in the journal.
        adopted_at: when somebody else than who started the command went on with it, 0 for never.
        cut_off: it was ended from outside: its end does not count.
    """

    read: int = START
    adopted_at: float = 0.0
    cut_off: bool = False


class Processes(NamedTuple):
    """The processes of a command, each with its start; 0 where there is none yet."""

    supervisor: int = 0
    supervisor_started: int = 0
    leader: int = 0
    leader_started: int = 0


class UnknownVersion(OSError):
    """The file was written by a newer version of taskrun."""


def order_end(fd: int) -> None:
    """Writes that the command is to end: for its supervisor, which looks when a signal comes."""
    os.pwrite(fd, b"\1", ENDING)


def end_ordered(fd: int) -> bool:
    """Whether the command is to end."""
    return os.pread(fd, 1, ENDING) == b"\1"


def begin(fd: int, facts: dict[str, Any], marks: Marks) -> None:
    """Writes the first block in one piece, as it is before there is a supervisor."""
    os.pwrite(fd, (_facts(facts).ljust(MARKS, b"\0") + _MARKS.pack(*marks)).ljust(START, b"\0"), FACTS)


def write_facts(fd: int, facts: dict[str, Any]) -> None:
    """Writes what is known of a command, in one piece."""
    os.pwrite(fd, _facts(facts).ljust(PROCESSES, b"\0"), FACTS)


def _facts(facts: dict[str, Any]) -> bytes:
    return json.dumps({"version": VERSION, **facts}).encode()


def read_facts(fd: int) -> dict[str, Any] | None:
    """Returns what is known of a command, None where whoever began to write it has died over it.

    Raises:
        UnknownVersion: it cannot be read.
    """
    data = os.pread(fd, PROCESSES, FACTS).rstrip(b"\0")
    try:
        facts = json.loads(data) if data else None
    except ValueError:
        facts = None
    if facts is None:
        return None
    if facts["version"] > VERSION:
        raise UnknownVersion(f"it was started by a newer version of taskrun (its file has version {facts['version']})")
    return dict(facts)


def write_processes(fd: int, processes: Processes) -> None:
    """Writes which processes there are."""
    os.pwrite(fd, _PROCESSES.pack(*processes), PROCESSES)


def read_processes(fd: int) -> Processes:
    """Returns which processes there are."""
    data = os.pread(fd, _PROCESSES.size, PROCESSES)
    return Processes(*_PROCESSES.unpack(data)) if len(data) == _PROCESSES.size else Processes()


def write_marks(fd: int, marks: Marks) -> None:
    """Writes the marks."""
    os.pwrite(fd, _MARKS.pack(*marks), MARKS)


def read_marks(fd: int) -> Marks:
    """Returns the marks."""
    data = os.pread(fd, _MARKS.size, MARKS)
    return Marks(*_MARKS.unpack(data)) if len(data) == _MARKS.size else Marks()


class End(NamedTuple):
    """How a command ended, as the text of its END has it.

    Parameters:
        code: its exit code, or the number of the error that kept it from starting.
        how: `exit`, `timeout` or `error`.
        what: could not be started.
    """

    code: int
    how: str = "exit"
    what: str = ""

    def text(self) -> str:
        """Returns it as text."""
        return f"{self.code} {self.how} {self.what}"

    @classmethod
    def of(cls, text: str) -> End:
        """Returns what a text says."""
        code, how, what = text.split(" ", 2)
        return cls(int(code), how, what)


def record(kind: int, at: float, text: str) -> bytes:
    """Returns the bytes of a record."""
    data = text.encode(errors="replace")
    return _RECORD.pack(kind, at, len(data)) + data


def records(fd: int, position: int) -> Iterator[Record]:
    """Yields the records from a position on, as far as they are complete."""
    while True:
        data = os.pread(fd, CHUNK, position)
        begin = position
        for found in _whole(data, position):
            position = found.after
            yield found
        if position == begin:
            long = _long(fd, data, position)
            if long is None:
                return
            position = long.after
            yield long


def _whole(data: bytes, position: int) -> Iterator[Record]:
    """Yields the records that a chunk holds whole."""
    at = 0
    while len(data) - at >= _RECORD.size:
        kind, moment, size = _RECORD.unpack_from(data, at)
        end = at + _RECORD.size + size
        if end > len(data) or not kind:
            return
        yield Record(kind, moment, data[at + _RECORD.size : end].decode(errors="replace"), position + end)
        at = end


def _long(fd: int, data: bytes, position: int) -> Record | None:
    """Returns a record that is longer than a chunk."""
    if len(data) < CHUNK or not data[0]:
        return None
    kind, moment, size = _RECORD.unpack_from(data)
    body = os.pread(fd, size, position + _RECORD.size)
    if len(body) < size:
        return None
    return Record(kind, moment, body.decode(errors="replace"), position + _RECORD.size + size)


def try_lock(fd: int, shared: bool = False) -> bool:
    """Locks a file, unless somebody has; with `shared` others may look at the same time."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
