"""How a thin client has the daemon execute a command line: where the daemon's files are, and the kinds of frames.

Thin client and daemon share this module. It imports almost nothing, because a warm command pays for every line of it. A frame
begins with one byte that tells its kind. The client's first frame is a `CommandRequest`. The daemon either refuses it, and the
client executes the command line itself, or sends a sign of life and executes it.
"""

import _socket  # what `socket` wraps, without its enums, which take longer to build than the daemon takes to answer
import os
import sys

FILE = "taskrun.toml"
FOLDER = ".taskrun"
JOURNAL = "journal.db"
LOCK = "daemon.lock"
PATIENCE = 10.0  # seconds that a client waits for a sign of life
MAGIC = b"\0taskrun order 2\0"  # no JSON begins like this, so a daemon that does not know it refuses it
LOCAL_PEERCRED, LOCAL_PEERPID = 1, 2  # of macOS

# sent by the daemon
ALIVE, OUT, ERR, WANT_ALL, WANT_LINE, END, REFUSED, STOPPED = b".", b"1", b"2", b"a", b"l", b"x", b"-", b"s"
# sent by the client
INTERRUPT, GIVEN, GIVEN_ALL, UNREADABLE = b"c", b"g", b"e", b"u"


def new_intent() -> str:
    """Returns a new idempotency key for one trigger: a request that is repeated with it finds the same run."""
    return os.urandom(12).hex()


def state_folder(root: str, journal: str) -> tuple[str, str]:
    """Returns the folder in which a project's daemon keeps its files, and the prefix of their names."""
    if "://" in journal:
        return f"{root}/{FOLDER}", ""
    folder, name = os.path.split(os.path.join(root, journal))
    return folder, "" if name == JOURNAL else f"{name}-"


def credentials(connection: _socket.socket) -> tuple[int, int]:
    """Returns uid and pid of the process at the other end."""
    if sys.platform == "darwin":
        found = connection.getsockopt(0, LOCAL_PEERCRED, 76)
        return _number(found[4:8]), connection.getsockopt(0, LOCAL_PEERPID)
    found = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return _number(found[4:8]), _number(found[:4])


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


class CommandRequest:
    """A command line, and what its caller's terminal is like.

    Parameters:
        intent: the idempotency key of the one trigger that it may make.
        ttys: which of the descriptors 0, 1 and 2 are terminals, as in `"011"`.
        size: columns and rows, 0 where there is no terminal.
        brief: it is to be refused unless it ends at once, since it may outlive the daemon.
    """

    def __init__(
        self,
        version: str,
        intent: str,
        ttys: str,
        size: tuple[int, int],
        encoding: str,
        cwd: str,
        argv: list[str],
        env: dict[str, str],
        brief: bool = False,
    ) -> None:
        self.version = version
        self.intent = intent
        self.ttys = ttys
        self.size = size
        self.encoding = encoding
        self.cwd = cwd
        self.argv = argv
        self.env = env
        self.brief = brief

    def packed(self) -> bytes:
        """Returns it as bytes, separated by NUL, which none of its parts can contain."""
        size, brief = f"{self.size[0]}x{self.size[1]}", "brief" * self.brief
        head = [self.version, self.intent, self.ttys, size, self.encoding, self.cwd, brief]
        env = [f"{name}={value}" for name, value in self.env.items()]
        return MAGIC + b"\0".join(map(os.fsencode, [*head, str(len(self.argv)), *self.argv, *env]))

    @classmethod
    def unpacked(cls, data: bytes) -> "CommandRequest":
        """Reads what `packed` returns; raises ValueError when it is something else."""
        version, intent, ttys, size, encoding, cwd, brief, count, *rest = map(
            os.fsdecode, data[len(MAGIC) :].split(b"\0")
        )
        columns, rows = map(int, size.split("x"))
        argv, env = rest[: int(count)], dict(one.split("=", 1) for one in rest[int(count) :])
        return cls(version, intent, ttys, (columns, rows), encoding, cwd, argv, env, bool(brief))
