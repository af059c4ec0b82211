"""The thin client: has a warm daemon execute a command line, and passes bytes on until it has ended.

`__main__` tries it first. It knows neither commands nor screens: whatever it is not sure of is executed in this process
instead. Importing it must cost next to nothing, hence no `socket`, `json`, `pathlib` or `typing`.
"""

import os
import sys
from _signal import SIG_BLOCK, SIG_UNBLOCK, SIGINT, pthread_sigmask  # type: ignore[import-not-found]
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
    UNREADABLE,
    WANT_ALL,
    WANT_LINE,
    CommandRequest,
    credentials,
    state_folder,
)
from taskrun.daemon.frames import CLIENT_CAP, FrameReader, frame
from taskrun.model import user_project

COMPLETE = "_complete"
LOOKING = {"list", "ps", "show", "tail", "jobs", "schedule", "why", "wait", COMPLETE}
REPEATABLE = LOOKING | {"start", "exec", "run", "cancel", "pause", "resume"}  # done twice they do the same as once
ONCE = {"send", "retry"}  # not to be repeated when the answer was lost
# the daemon executes these if they end at once: what runs for long outlives it
FOLLOWING = {"run", "tail", "start", "exec", "show"}
FOLLOW = {"--follow", "--watch"}
FOLLOW_LETTERS = "fw"
LOCAL = {"--local"}
LOCAL_FILES = ("@/dev/", "@/proc/")  # to another process these are other files
FORWARDED = {"COLUMNS", "LINES", "TERM", "NO_COLOR", "LANG", "TZ", "HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"}
FORWARDED_PREFIXES = ("LC_", "TASKRUN_", "_TASKRUN_", "COMP_")
UNREACHABLE, FAULT, INTERRUPTED, PIPE = 4, 125, 130, 141
CHUNK = 65536
TRIES, PAUSE = 12, 0.3  # that a daemon which was stopped is waited for: it may be restarting
AT_ONCE = 4096  # bytes that a pipe takes without blocking, once it takes any


def run_in_daemon(argv: list[str], intent: str) -> int | None:
    """Returns the exit code of a command line that the daemon has executed, None when this process is to execute it."""
    name, config, user, follows = _command_and_project(argv)
    if name not in REPEATABLE | ONCE or None in (sys.stdin, sys.stdout, sys.stderr):
        return None
    if (name == "schedule" and "add" in argv) or (name == "exec" and _saves(argv)):  # it writes the caller's own file
        return None
    stopped = False
    for _ in range(TRIES):
        client = _requested(name, config, user, argv, intent, follows)
        try:
            if client is not None:
                return client.serve(name in REPEATABLE)
        except _Stopped:
            stopped = True
        if not stopped:
            return None
        pthread_sigmask(SIG_UNBLOCK, {SIGINT})
        sleep(PAUSE)
    return _failed(f"the daemon was stopped; start it: {_command(argv, 'daemon start')}", argv)


def _requested(
    name: str, config: str, user: bool, argv: list[str], intent: str, follows: bool
) -> "CommandClient | None":
    """Returns the connection on which a daemon was sent the command line; None when there is no warm daemon."""
    try:
        connection = _connected(*_daemon(_user_config() if user else _config_path(config, name)))
        if connection is None:
            return None
        client = CommandClient(connection, argv)
        # from here on a run may begin: Ctrl-C is for `serve`, or for this process once its command can hear it
        pthread_sigmask(SIG_BLOCK, {SIGINT})
        client.send(_request(name, argv, intent, follows).packed())
    except (OSError, ValueError, _Lost):
        return None
    return client


def _command_and_project(argv: list[str]) -> tuple[str, str, bool, bool]:
    """Returns the command, the value of `--config`, whether `--user` is there, and whether it follows something to its end.

    There is no command when it stays in this process.
    """
    name, config, user, local, follows, rest = "", "", False, False, False, iter(argv)
    for token in rest:
        if token == "--":
            break
        if token == "--config":
            config = next(rest, "")
        elif token.startswith("--config="):
            config = token[9:]
        elif token == "--user" and not name:
            user = True
        elif not name:
            name = token
        local = local or token in LOCAL or any(one in token for one in LOCAL_FILES)
        follows = follows or token in FOLLOW
        follows = follows or (token[:1] == "-" != token[1:2] and any(one in token for one in FOLLOW_LETTERS))
    if name in ("run", "tail"):
        follows = "--no-follow" not in argv
    # standard input can be read only once
    if follows and (name not in FOLLOWING or "-" in argv or "--input=-" in argv):
        local = True
    local = (local and name != COMPLETE) or bool(user and config)
    return "" if local else name, config, user, follows


# ---- finding the daemon


def _daemon(config: str) -> tuple[bytes, bytes]:
    """Returns the path of the project's socket and the daemon's pid, as it has written them down; empty when unreadable."""
    folder, prefix = _state_folder(config)
    with open(f"{folder}/{prefix}{LOCK}", "rb") as file:
        holder = file.read()
    path = holder.partition(b'"socket":"')[2].partition(b'"')[0]
    return b"" if b"\\" in path else path, holder.partition(b'"pid":')[2].partition(b",")[0]


def _config_path(named: str, command: str) -> str:
    """Returns the path of the configuration, as `model.config.find` does; outside of any, `exec` has the user's own project."""
    folder = os.getcwd()
    named = named or os.environ.get("TASKRUN_CONFIG", "")
    if named:
        path = os.path.join(folder, named)
        return os.path.join(path, FILE) if os.path.isdir(path) else path
    while not os.path.isfile(f"{folder}/{FILE}"):
        if folder == "/" and command == "exec":
            return _user_config()
        if folder == "/":
            raise FileNotFoundError(FILE)
        folder = os.path.dirname(folder)
    return f"{folder}/{FILE}"


def _user_config() -> str:
    return f"{user_project.config_folder(os.environ)}/{FILE}"


def _state_folder(config: str) -> tuple[str, str]:
    """Guesses where the daemon keeps its files, without a TOML parser; the daemon checks that it is the right one."""
    journal = os.environ.get("TASKRUN_JOURNAL", "")
    with open(config, "rb") as file:
        for line in () if journal else file:
            key, _, value = line.partition(b"=")
            if key.strip() == b"journal":
                journal = os.fsdecode(value.strip()[1:].partition(value.strip()[:1])[0])
    root = os.path.dirname(config)
    if not journal and user_project.is_user_project(root, os.environ):
        journal = f"{user_project.state_folder(os.environ)}/{JOURNAL}"
    return state_folder(root, journal or f"{FOLDER}/{JOURNAL}")


def _connected(path: bytes, pid: bytes) -> socket | None:
    """Returns a connection to this user's own daemon, and to nobody who has taken its place at the socket."""
    if not path or os.lstat(os.path.dirname(path)).st_mode & 0o170077 != 0o040000:
        return None
    connection = socket(AF_UNIX, SOCK_STREAM)
    connection.settimeout(PATIENCE)
    connection.connect(path)
    return connection if credentials(connection) == (os.getuid(), int(pid)) else None


# ---- what the caller's terminal is like


def _request(name: str, argv: list[str], intent: str, follows: bool) -> CommandRequest:
    ttys = "".join("01"[os.isatty(number)] for number in (0, 1, 2))
    wanted = FORWARDED | _of_command(argv) if name == "exec" else FORWARDED
    env = {name: value for name, value in os.environ.items() if name in wanted or name.startswith(FORWARDED_PREFIXES)}
    size = _size(ttys)
    return CommandRequest(__version__, intent, ttys, size, sys.stdout.encoding, os.getcwd(), argv, env, follows)


def _of_command(argv: list[str]) -> set[str]:
    """Returns the variables of the caller that a command is to have: `PATH`, and those that `--env` only names."""
    named = [argv[at] for at in range(1, len(argv)) if argv[at - 1] == "--env"]
    return {"PATH", *named, *(token[6:] for token in argv if token.startswith("--env="))}


def _saves(argv: list[str]) -> bool:
    """Whether the command is only to be written to `taskrun.toml`."""
    own = argv[: argv.index("--")] if "--" in argv else argv
    return any(token.startswith("--save") for token in own)


def _size(ttys: str) -> tuple[int, int]:
    for number in (1, 2, 0):
        if ttys[number] == "1":
            size = os.get_terminal_size(number)
            return size.columns, size.lines
    return 0, 0


# ---- the connection


class CommandClient:
    """A connection on which the daemon executes a command line."""

    def __init__(self, connection: socket, argv: list[str]) -> None:
        self._connection = connection
        self._argv = argv
        self._frames = FrameReader(CLIENT_CAP)
        self._unwritten: list[tuple[int, bytes]] = []
        self._wanted = b""  # what of standard input
        self._printed = False
        self._interrupts = 0

    def send(self, payload: bytes) -> None:
        """Sends a frame."""
        try:
            self._connection.sendall(frame(payload, CLIENT_CAP))
        except OSError as error:
            raise _Lost from error

    def serve(self, repeatable: bool) -> int | None:
        """Passes bytes on, both ways, until the end; returns the exit code, None when this process is to do it all again.

        Parameters:
            repeatable: whether it may be done again when the daemon was lost meanwhile.
        """
        try:
            while (code := self._turn()) is None:
                pass
        except _Lost:
            if repeatable and not self._printed:
                return self._hand_over()
            return self._fail("the daemon went away before it had answered")
        except BrokenPipeError:
            return PIPE
        except OSError as error:
            return _failed(f"standard output: {error.strerror}", self._argv, FAULT, as_json=False)
        return self._hand_over() if code == REFUSED else int(code)

    def _hand_over(self) -> int | None:
        """Leaves the command line to this process, with the Ctrl-C that the daemon was told of and may not have heeded."""
        if self._interrupts:
            os.kill(os.getpid(), SIGINT)  # it is blocked until the command can hear it
        return None

    def _turn(self) -> bytes | None:
        """Waits for something and handles it; returns the exit code, or `REFUSED`, once there is one."""
        sources = [self._connection.fileno()] + [0] * bool(self._wanted)
        sinks = [self._unwritten[0][0]] if self._unwritten else []
        try:
            readable, writable = _selected(sources, sinks)
        except KeyboardInterrupt:
            return self._interrupted()
        if writable:
            self._write(AT_ONCE)
        if 0 in readable:
            self._give()
        if self._connection.fileno() in readable:
            return self._receive()
        if readable or writable:
            return None
        return b"%d" % self._fail("the daemon gave no answer within 10 seconds")

    def _fail(self, text: str) -> int:
        return _failed(text, self._argv, as_json=not self._printed)

    def _interrupted(self) -> bytes | None:
        self._interrupts += 1
        self.send(INTERRUPT)
        return None if self._interrupts == 1 else b"%d" % INTERRUPTED

    # ---- what the daemon sends

    def _receive(self) -> bytes | None:
        """Takes frames; returns the exit code, or `REFUSED`, once there is one."""
        for payload in self._frames.feed(self._read()):
            kind, data = payload[:1], payload[1:]
            if kind == END:
                pthread_sigmask(SIG_UNBLOCK, {SIGINT})  # who reads may take long
                while self._unwritten:
                    self._write(CHUNK)
                return data
            if kind in (WANT_ALL, WANT_LINE):
                self._wanted = kind
            elif kind in (OUT, ERR):
                self._unwritten.append((1 if kind == OUT else 2, data))
            elif kind == STOPPED:
                raise _Stopped
            elif kind in (REFUSED, b"{"):  # a daemon that does not know this protocol answers with JSON
                return REFUSED
        return None

    def _read(self) -> bytes:
        try:
            data = self._connection.recv(CHUNK)
        except OSError as error:
            raise _Lost from error
        if not data:
            raise _Lost
        return data

    # ---- standard output, error and input

    def _write(self, most: int) -> None:
        """Writes some of what is due. A standard error that is no longer read does not matter."""
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
        try:
            data = os.read(0, CHUNK)
        except OSError as error:
            data = b""
            self.send(UNREADABLE + os.fsencode(str(error.strerror)))
        else:
            self.send(GIVEN + data if data else GIVEN_ALL)
        if not data or self._wanted == WANT_LINE:
            self._wanted = b""


def _selected(sources: list[int], sinks: list[int]) -> tuple[list[int], list[int]]:
    """Waits for descriptors; a Ctrl-C that came before is heard here, too."""
    try:
        pthread_sigmask(SIG_UNBLOCK, {SIGINT})
        readable, writable, _ = select(sources, sinks, [], PATIENCE)
    finally:
        pthread_sigmask(SIG_BLOCK, {SIGINT})
    return readable, writable


class _Lost(Exception):
    """The connection to the daemon is gone."""


class _Stopped(Exception):
    """The daemon was told to stop."""


def _failed(text: str, argv: list[str], code: int = UNREACHABLE, as_json: bool = True) -> int:
    """Says what went wrong, also as JSON where the command line asks for it and `as_json` allows it."""
    hint = f"see its log: {_command(argv, 'daemon logs')}" if code == UNREACHABLE else ""  # else it did nothing wrong
    if as_json and "--json" in argv and "--" not in argv[: argv.index("--json")]:
        document = f'{{"error": {{"type": "DaemonError", "message": {_json(text)}, "hint": {_json(hint)}}}}}\n'
        os.write(1, document.encode(errors="backslashreplace"))
    os.write(2, os.fsencode(f"error: {text}\n" + (f"  {hint}\n" if hint else "")))
    return code


def _command(argv: list[str], command: str) -> str:
    """Returns a command as it is to be typed for the project that a command line means."""
    name, config, user, _ = _command_and_project(argv)
    user = user or (name == "exec" and _config_path(config, name) == _user_config())
    option = "--user " if user else f"--config {_quoted(config)} " if config else ""
    return f"taskrun {option}{command}"


def _quoted(word: str) -> str:
    """Returns a word as it is typed in a shell, as `shlex.quote` does."""
    bare = word.isascii() and all(one.isalnum() or one in "@%+=:,./-_" for one in word)
    return word if bare else "'" + word.replace("'", "'\"'\"'") + "'"


def _json(text: str) -> str:
    """Returns a text as JSON."""
    return '"' + "".join(one if one >= " " and one not in '"\\' else f"\\u{ord(one):04x}" for one in text) + '"'
