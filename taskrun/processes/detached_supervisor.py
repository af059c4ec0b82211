"""Supervises commands that survive their worker: what they print and how they end goes to a file, whoever lives to read it.

A worker starts one launcher, which has everything imported and does nothing but fork, so that an upgrade of the package reaches
no command that is under way. The fork leads a session of its own and holds one end of a socket pair, by which the worker gives
it one command after the other, and orders, and hears that there is something to read. With a command it takes over the lock on
the command's file. When the worker is gone, it goes on until that command has ended. Then SIGUSR1 is the order to end it, SIGUSR2
to end it at once; they count only if its file says that it is to end, since who sends them may have meant the command before.

Standard library only.
"""

from __future__ import annotations

import codecs
import errno
import gc
import marshal
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from taskrun.processes.command_file import (
    END,
    ERR,
    OUT,
    STDERR,
    STDOUT,
    End,
    Processes,
    end_ordered,
    read_marks,
    record,
    write_processes,
)
from taskrun.processes.excerpt import KEEP, Excerpt
from taskrun.processes.output_lines import LIVELY, OutputLines
from taskrun.processes.process_table import process
from taskrun.processes.supervisor import IGNORED, LOOK, PR_SET_CHILD_SUBREAPER, RESET, Group, prctl

CHUNK = 64 * 1024
UNREAD_WITH_READER = 8_000_000  # bytes that a command may print ahead of the worker that reads, before it has to wait
UNREAD_ALONE = 1_000_000_000  # bytes that a command may print while no worker reads
DISK = 0.2  # seconds between two tries while the disk refuses
PATIENCE = 2.0  # seconds that a command which is to end waits for such a disk
MOST = 1024 * 1024  # bytes that are read from a pipe when the command is gone: more than any holds
FDS = 3  # that come with a command at most: its file, what to execute, its stdin if it has any
NEWS, READY = b"n", b"r"  # to the worker: there is something to read; the command has ended, and the next one may come
_decoder = codecs.getincrementaldecoder("utf-8")
_launcher = os.getpid()
_orders: list[int] = []  # signals that have come


def main(fd: int, spare: float) -> NoReturn:
    """Forks a supervisor for each CONTROL that comes, until the worker is gone.

    What the forks need is set up here as far as can be: each page of memory that a fork writes to is copied, and that is most of
    what it costs.

    Parameters:
        spare: seconds that a supervisor waits for its next command.
    """
    connection = socket.socket(fileno=fd)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, _reap)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda order, _: _orders.append(order))
    gc.collect()
    gc.freeze()
    while True:
        message, fds, _, _ = socket.recv_fds(connection, 1, 1)
        if not message:
            os._exit(0)
        for control in fds:
            if os.fork() == 0:
                try:
                    connection.close()
                    serve(control, spare)
                finally:
                    os._exit(1)
            os.close(control)


def _reap(*_: object) -> None:
    """Collects supervisors that have ended; they themselves see to their commands."""
    try:
        while os.getpid() == _launcher and os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def serve(control: int, spare: float) -> NoReturn:
    """Runs one command after the other, until the worker is gone or has no more for this process."""
    os.setsid()
    os.set_inheritable(control, False)
    os.set_blocking(control, False)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake, write = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    own = Processes(os.getpid(), _started(os.getpid()))
    worker = socket.socket(fileno=control)
    while True:
        if not select.select([control], [], [], spare)[0]:
            os._exit(0)
        message, fds, _, _ = socket.recv_fds(worker, 1, FDS)
        if not message or (fds and not supervise(own, control, wake, *fds)):
            os._exit(0)


def supervise(own: Processes, control: int, wake: int, file: int, order_file: int, stdin: int | None = None) -> bool:
    """Runs one command to its end; returns whether nothing of it is left here, so that another may come."""
    os.set_inheritable(file, False)
    with open(order_file, "rb", 0) as orders:
        order: dict[str, Any] = marshal.loads(orders.read())
    _orders.clear()
    output = Output(file)
    write_processes(file, own)
    try:
        leader, streams = _start(order, stdin)
    except OSError as error:
        output.end(End(error.errno or 0, "error", str(error.filename)))
        return False
    write_processes(file, own._replace(leader=leader, leader_started=_started(leader)))
    if not Supervision(leader, control, wake, output, streams, order["grace"], order["timeout"]).run():
        return False
    os.chdir("/")
    os.close(file)
    os.write(control, READY)
    return True


def _started(pid: int) -> int:
    found = process(pid)
    return 0 if found is None else found.started


def _start(order: dict[str, Any], stdin: int | None) -> tuple[int, list[Stream]]:
    """Starts the command; returns its pid and its streams. Without a stdin it has that of this process, where nothing comes.

    Raises:
        OSError: it cannot be started, or its folder is not there.
    """
    os.chdir(order["cwd"])
    streams = [Stream(OUT), Stream(ERR)]
    given = {stream.write_fd: number for number, stream in enumerate(streams, 1)} | (
        {} if stdin is None else {stdin: 0}
    )
    try:
        return _spawn(order["command"], order["env"], given), streams
    finally:
        for fd in given:
            os.close(fd)


def _spawn(command: list[str], env: dict[str, str], given: dict[int, int]) -> int:
    """Spawns the command as the leader of a session, without a fork of this process, which would take longer than all else.

    Parameters:
        given: descriptors, each with what it is to be in the command.
    """
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in given.items()]
    refused: OSError = FileNotFoundError(errno.ENOENT, "not found", command[0])
    for path in _paths(command[0], env.get("PATH", os.defpath)):
        try:
            return os.posix_spawn(path, command, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=RESET)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refused = OSError(error.errno, error.strerror, command[0])
    raise refused


def _paths(program: str, search: str) -> Iterator[str]:
    if "/" in program:
        yield program
        return
    for folder in search.split(os.pathsep):
        path = f"{folder or '.'}/{program}"
        if os.access(path, os.F_OK):
            yield path


class Stream:
    """One output stream of the command."""

    def __init__(self, kind: int) -> None:
        self.excerpt = Excerpt(KEEP)
        self.lines = OutputLines()
        self.fd, self.write_fd = os.pipe()
        self._kind = kind
        self._decoder = _decoder("replace")
        os.set_blocking(self.fd, False)

    def read(self) -> bytes | None:
        """Returns records of what the command has printed; None where there is nothing. At the end `fd` is closed."""
        try:
            data = os.read(self.fd, CHUNK)
        except BlockingIOError:
            return None
        if not data:
            os.close(self.fd)
            self.fd = -1
            return None
        self.excerpt.add(data)
        return self._records(self.lines.feed(self._decoder.decode(data)))

    def state(self) -> bytes:
        """Returns a record of a line that is written again and again, if it is time."""
        state = self.lines.state(time.monotonic())
        return b"" if state is None else self._records([state])

    def finish(self) -> bytes:
        """Returns records of what is left when the command is gone."""
        found: list[bytes] = []
        while self.fd >= 0 and len(found) < MOST // CHUNK and (more := self.read()) is not None:
            found.append(more)
        if self.fd >= 0:  # somebody elsewhere has the other end
            os.close(self.fd)
        rest = self.lines.feed(self._decoder.decode(b"", final=True))
        return b"".join([*found, self._records([*rest, *self.lines.finish()])])

    def _records(self, lines: list[str]) -> bytes:
        now = time.time()
        return b"".join([record(self._kind, now, line) for line in lines])


class Output:
    """The command's file, for writing. While the disk refuses, what could not be written is kept, and nothing more is read."""

    def __init__(self, fd: int) -> None:
        self.position = os.lseek(fd, 0, os.SEEK_END)
        self.unwritten = b""
        self.fd = fd
        self._retry_at = 0.0
        self._read = 0  # how far it has been read, when last looked

    def write(self, data: bytes) -> bool:
        """Appends; returns whether all of it was written."""
        self.unwritten += data
        while self.unwritten:
            if time.monotonic() < self._retry_at:
                return False
            try:
                written = os.write(self.fd, self.unwritten)
            except OSError:
                self._retry_at = time.monotonic() + DISK
                return False
            self.unwritten = self.unwritten[written:]
            self.position += written
        return True

    def ahead(self, limit: int) -> bool:
        """Whether more than so many bytes wait to be read."""
        if self.position - self._read > limit:
            self._read = read_marks(self.fd).read
        return self.position - self._read > limit

    def end(self, how: End, excerpts: bytes = b"", *, give_up: float | None = None, keep: bool = False) -> bool:
        """Appends the END, however long the disk refuses; returns whether it could.

        Parameters:
            give_up: the moment from which the disk is waited for no longer.
            keep: nobody will soon write down elsewhere what is in the file, so it has to be on the disk.
        """
        done = self.write(excerpts + record(END, time.time(), how.text()))
        while not done and (give_up is None or time.monotonic() < give_up):
            time.sleep(DISK)
            done = self.write(b"")
        if keep:
            os.fsync(self.fd)
        return done


class Supervision(Group):
    """A command under way, with a worker that reads or without.

    Parameters:
        timeout: seconds after which it is ended where no worker sees to that.
    """

    def __init__(
        self,
        leader: int,
        control: int,
        wake: int,
        output: Output,
        streams: list[Stream],
        grace: float,
        timeout: float | None,
    ) -> None:
        super().__init__(leader, control, wake, os.getppid())
        self._output = output
        self._streams = streams
        self._grace = grace
        self._limit = None if timeout is None else time.monotonic() + timeout
        self._timed_out = False

    def run(self) -> bool:
        """Oversees it to its end, and writes that down; returns whether it went well, and the worker is there."""
        code = self.oversee()
        rest = b"".join([stream.finish() for stream in self._streams])
        for kind, stream in zip((STDOUT, STDERR), self._streams, strict=True):
            if text := stream.excerpt.text():
                rest += record(kind, 0.0, text)
        give_up = None if self.deadline is None else time.monotonic() + PATIENCE
        end = End(code, "timeout" if self._timed_out else "exit")
        written = self._output.end(end, rest, give_up=give_up, keep=self.control < 0)
        ended_by_itself = self.deadline is None and not end_ordered(self._output.fd)
        return written and ended_by_itself and self.control >= 0 and not self.reap()

    def wait(self) -> None:
        """Hands on what is printed, until a child ends or an order comes."""
        flowing = not self._output.unwritten and not self._output.ahead(
            UNREAD_WITH_READER if self.control >= 0 else UNREAD_ALONE
        )
        pipes = {stream.fd: stream for stream in self._streams if stream.fd >= 0} if flowing else {}
        fds = [self.wake, *pipes] if self.control < 0 else [self.wake, self.control, *pipes]
        ready = select.select(fds, [], [], self._pause(flowing))[0]
        if self.wake in ready:
            os.read(self.wake, 4096)
        while _orders:
            grace = self._grace if _orders.pop() == signal.SIGUSR1 else 0.0
            if end_ordered(self._output.fd):
                self.stop(grace)
        if self.control in ready:
            self.obey()
        found = b"".join([pipes[fd].read() or b"" for fd in ready if fd in pipes])
        found += b"".join([stream.state() for stream in self._streams])
        if found or self._output.unwritten:
            self._output.write(found)
            self._tell()
        if self.control < 0 and self.deadline is None and self._limit is not None and time.monotonic() > self._limit:
            self._timed_out = True
            self.stop(self._grace)

    def lose_engine(self) -> None:
        """The worker is gone: the command goes on."""
        os.close(self.control)
        self.control = -1

    def _pause(self, flowing: bool) -> float:
        if self.deadline is not None or not flowing:
            return 0.05
        return LIVELY if any(stream.lines.restless for stream in self._streams) else LOOK

    def _tell(self) -> None:
        """Lets the worker know that there is something to read."""
        if self.control >= 0:
            try:
                os.write(self.control, NEWS)
            except OSError:  # it has been told and has not come to it, or is gone
                pass
