"""The thin client: hands a command line to a warm daemon and passes bytes on until it has ended.

`__main__` asks it first. It knows neither commands nor screens: whatever it is not sure of is done in this process instead.
Importing it must cost next to nothing, hence no `socket`, `json`, `pathlib` or `typing`.
"""

import os
import sys
from _socket import AF_UNIX, SOCK_STREAM, socket
from select import select
from time import sleep

from taskrun import __version__
from taskrun.daemon.command_protocol import (
    END,
    ERR,
    FILE,
    FOLDER,
    GIVEN,
    GIVEN_ALL,
    INTERRUPT,
    JOURNAL,
    LOCK,
    OUT,
    PATIENCE,
    REFUSED,
    STOPPED,
    WANT_ALL,
    WANT_LINE,
    CommandRequest,
    credentials,
    framed,
    state_folder,
)

COMPLETE = "_complete"
AGAIN = {
    "list",
    "ps",
    "show",
    "tail",
    "jobs",
    "schedule",
    "why",
    "wait",
    "start",
    "cancel",
    "pause",
    "resume",
    COMPLETE,
}
ONCE = {"send", "retry"}  # what must not be done a second time when the answer was lost
STAYS = {"--follow", "--watch", "--local"}  # what is long under way outlives daemons
LETTERS = "fw"
OURS = ("@/dev/", "@/proc/")  # files that are others to another process
FORWARDED = {"COLUMNS", "LINES", "TERM", "NO_COLOR", "LANG", "TZ"}
UNREACHABLE, FAULT, INTERRUPTED, PIPE = 4, 125, 130, 141
CHUNK = 65536
TRIES, PAUSE = 12, 0.3  # for a daemon that was told to stop to be back
AT_ONCE = 4096  # bytes that a pipe takes without blocking, once it takes any


def run_in_daemon(argv: list[str], intent: str) -> int | None:
    """Returns the exit code of a command line that the daemon has executed, None when it is to be done here."""
    name, config = _look(argv)
    if name not in AGAIN | ONCE or None in (sys.stdin, sys.stdout, sys.stderr):
        return None
    stopped = False
    for _ in range(TRIES):
        line = _ordered(config, argv, intent)
        try:
            if line is not None:
                return line.carry(name in AGAIN)
        except _Stopped:
            stopped = True
        if not stopped:
            return None
        sleep(PAUSE)  # it may be a restart
    return _failed("the daemon was stopped; start it: taskrun daemon start", argv)


def _ordered(config: str, argv: list[str], intent: str) -> "CommandClient | None":
    """Returns the line on which a daemon was given the order; None when there is no warm one."""
    try:
        connection = _connected(_door(config))
        if connection is None:
            return None
        line = CommandClient(connection, argv)
        line.order(_order(argv, intent))
    except (OSError, ValueError, _Lost):
        return None
    return line


def _look(argv: list[str]) -> tuple[str, str]:
    """Returns the command and what `--config` names; no command when it might be one that stays here."""
    name, config, stays, rest = "", "", False, iter(argv)
    for token in rest:
        if token == "--":
            break
        if token == "--config":
            config = next(rest, "")
        elif token.startswith("--config="):
            config = token[9:]
        elif not name:
            name = token
        stays = stays or token in STAYS or any(one in token for one in OURS)
        stays = stays or (token[:1] == "-" != token[1:2] and any(one in token for one in LETTERS))
    stays = "--no-follow" not in argv if name == "tail" else stays and name != COMPLETE
    return "" if stays else name, config


# ---- finding the daemon


def _door(config: str) -> bytes:
    """Returns the path of the project's socket by the daemon's own word; empty when there is no telling."""
    folder, prefix = _state_folder(_config(config))
    with open(f"{folder}/{prefix}{LOCK}", "rb") as file:
        path = file.read().partition(b'"socket":"')[2].partition(b'"')[0]
    return b"" if b"\\" in path else path


def _config(named: str) -> str:
    """Returns the path of the configuration, as `words.config.find` does."""
    folder = os.getcwd()
    named = named or os.environ.get("TASKRUN_CONFIG", "")
    if named:
        path = os.path.join(folder, named)
        return os.path.join(path, FILE) if os.path.isdir(path) else path
    while not os.path.isfile(f"{folder}/{FILE}"):
        if folder == "/":
            raise FileNotFoundError(FILE)
        folder = os.path.dirname(folder)
    return f"{folder}/{FILE}"


def _state_folder(config: str) -> tuple[str, str]:
    """Guesses where the daemon keeps its files; the daemon itself looks whether it was meant."""
    journal = os.environ.get("TASKRUN_JOURNAL", "")
    with open(config, "rb") as file:
        for line in () if journal else file:
            key, _, value = line.partition(b"=")
            if key.strip() == b"journal":
                journal = os.fsdecode(value.strip()[1:].partition(value.strip()[:1])[0])
    return state_folder(os.path.dirname(config), journal or f"{FOLDER}/{JOURNAL}")


def _connected(path: bytes) -> socket | None:
    """Returns a connection to this user's own daemon."""
    if not path or os.lstat(os.path.dirname(path)).st_mode & 0o170077 != 0o040000:
        return None
    connection = socket(AF_UNIX, SOCK_STREAM)
    connection.settimeout(PATIENCE)
    connection.connect(path)
    return connection if credentials(connection)[0] == os.getuid() else None


# ---- what the caller is like


def _order(argv: list[str], intent: str) -> CommandRequest:
    ttys = "".join("01"[os.isatty(number)] for number in (0, 1, 2))
    env = {name: value for name, value in os.environ.items() if _matters(name)}
    return CommandRequest(__version__, intent, ttys, _size(ttys), sys.stdout.encoding, os.getcwd(), argv, env)


def _matters(name: str) -> bool:
    return name in FORWARDED or name.startswith(("LC_", "TASKRUN_", "_TASKRUN_", "COMP_"))


def _size(ttys: str) -> tuple[int, int]:
    for number in (1, 2, 0):
        if ttys[number] == "1":
            size = os.get_terminal_size(number)
            return size.columns, size.lines
    return 0, 0


# ---- talking


class CommandClient:
    """A connection on which a command line is under way."""

    def __init__(self, connection: socket, argv: list[str]) -> None:
        self._connection = connection
        self._argv = argv
        self._received = b""
        self._unwritten: list[tuple[int, bytes]] = []
        self._wanted = b""  # what of standard input
        self._printed = False
        self._interrupts = 0

    def order(self, order: CommandRequest) -> None:
        """Says what is to be done."""
        packed = order.packed()
        self._send(len(packed).to_bytes(4, "big") + packed)

    def carry(self, again: bool) -> int | None:
        """Passes bytes on until the end; None when it is to be done here.

        Parameters:
            again: whether it may be done again when the daemon was lost meanwhile.
        """
        try:
            while (code := self._turn()) is None:
                pass
        except _Lost:
            return None if again and not self._printed else self._fails("the daemon went away before it had answered")
        except BrokenPipeError:
            return PIPE
        except OSError as error:
            return _failed(f"standard output: {error.strerror}", [], FAULT)
        return None if code == REFUSED else int(code)

    def _turn(self) -> bytes | None:
        """Waits for something and does it; returns how it ended when it has."""
        sources = [self._connection.fileno()] + [0] * bool(self._wanted)
        sinks = [self._unwritten[0][0]] if self._unwritten else []
        try:
            readable, writable, _ = select(sources, sinks, [], PATIENCE)
        except KeyboardInterrupt:
            return self._interrupted()
        if writable:
            self._write(AT_ONCE)
        if 0 in readable:
            self._give()
        if self._connection.fileno() in readable:
            return self._take()
        return None if readable or writable else self._silent()

    def _silent(self) -> bytes:
        return b"%d" % self._fails("the daemon gave no answer within 10 seconds")

    def _fails(self, text: str) -> int:
        return _failed(text, [] if self._printed else self._argv)

    def _interrupted(self) -> bytes | None:
        self._interrupts += 1
        self._send(framed(INTERRUPT))
        return None if self._interrupts == 1 else b"%d" % INTERRUPTED

    def _send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as error:
            raise _Lost from error

    # ---- what comes from the daemon

    def _take(self) -> bytes | None:
        """Takes frames; returns the code of the last one."""
        data = self._read()
        while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[:4], "big")):
            kind, payload, data = data[4:5], data[5:end], data[end:]
            if kind == END:
                self._flush()
                return payload
            if kind in (WANT_ALL, WANT_LINE):
                self._wanted = kind
            elif kind in (OUT, ERR):
                self._unwritten.append((1 if kind == OUT else 2, payload))
            elif kind == STOPPED:
                raise _Stopped
            elif kind in (REFUSED, b"{"):  # a daemon that knows nothing of this answers with JSON
                return REFUSED
        self._received = data
        return None

    def _read(self) -> bytes:
        try:
            data = self._connection.recv(CHUNK)
        except OSError as error:
            raise _Lost from error
        if not data:
            raise _Lost
        return self._received + data

    # ---- standard output, error and input

    def _flush(self) -> None:
        while self._unwritten:
            self._write(CHUNK)

    def _write(self, most: int) -> None:
        """Writes some of what is due; a reader of standard error who has left is no trouble."""
        number, data = self._unwritten[0]
        try:
            written = os.write(number, data[:most])
        except OSError:
            if number == 1:
                raise
            written = len(data)
        self._printed = self._printed or number == 1
        self._unwritten[:1] = [(number, data[written:])] if written < len(data) else []

    def _give(self) -> None:
        data = os.read(0, CHUNK)
        self._send(framed(GIVEN, data) if data else framed(GIVEN_ALL))
        if not data or self._wanted == WANT_LINE:
            self._wanted = b""


class _Lost(Exception):
    """The daemon is gone."""


class _Stopped(Exception):
    """The daemon was told to stop."""


def _failed(text: str, argv: list[str], code: int = UNREACHABLE) -> int:
    """Says what went wrong, also as JSON where the command line asks for it."""
    hint = "see what it says: taskrun daemon logs"
    if "--json" in argv and "--" not in argv[: argv.index("--json")]:
        os.write(1, f'{{"error": {{"type": "DaemonError", "message": "{text}", "hint": "{hint}"}}}}\n'.encode())
    os.write(2, f"error: {text}\n  {hint}\n".encode())
    return code
