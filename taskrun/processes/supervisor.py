"""The supervisor: a small program between the engine and one command, which sees to it that nothing of the command is left.

`process.py` runs it as `python -I -S supervisor.py CONTROL LOCK PARENT COMMAND…`. It starts the command in a session of
its own and watches CONTROL, one end of a socket pair. On `stop SECONDS` the command's group gets TERM, what is left
after that KILL; when the other end is gone, because the engine died of whatever, KILL at once. What the command leaves
behind when it ends by itself is killed too. On Linux orphans fall to the supervisor (a "subreaper"), so that `setsid` and
double forks do not escape; elsewhere those do whose parents are gone. It says `pid N` at the start and `exit CODE`, or
`error ERRNO`.

Standard library only and as little of it as possible: this start-up time is paid for each command.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

LINUX = sys.platform == "linux"
if LINUX:
    import ctypes

    _LIBRARY = ctypes.CDLL(None)

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# The engine decides, not a signal that goes to everybody.
IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
RESET = (*IGNORED, signal.SIGPIPE, signal.SIGXFSZ)  # in the command: it does not ignore what its supervisor does
LOOK = 1.0  # seconds between two looks for a parent that died while a fork of it holds the other end of CONTROL
UNKILLABLE = 10.0  # seconds after which what KILL does not end (stuck in the kernel, or another user's) is left alone


def main() -> NoReturn:
    """Runs the command of `sys.argv` to its end."""
    control, lock, parent = (int(word) for word in sys.argv[1:4])
    for fd in (control, lock):
        if fd >= 0:
            os.set_inheritable(fd, False)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake = listen()
    try:
        leader = spawn(sys.argv[4:])
    except OSError as error:
        report(control, "error", error.errno or 0)
    else:
        report(control, "pid", leader)
        report(control, "exit", Group(leader, control, wake, parent).oversee())
    os._exit(0)


def prctl(option: int, value: int) -> None:
    """Sets a property of this process, on Linux."""
    if LINUX:
        _LIBRARY.prctl(option, value, 0, 0, 0)


def listen() -> int:
    """Sets up the signals; the descriptor returned becomes readable when a child ends."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    wake, write = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wake


def report(control: int, word: str, number: int) -> None:
    """Tells the engine, if it is still there."""
    try:
        os.write(control, f"{word} {number}\n".encode())
    except OSError:
        pass


def spawn(command: list[str]) -> int:
    """Starts the command as the leader of a new session; raises what `exec` raised."""
    failure, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        become(command, tell)
    os.close(tell)
    problem = os.read(failure, 16)
    os.close(failure)
    if problem:
        os.waitpid(pid, 0)
        raise OSError(int(problem), "exec failed")
    return pid


def become(command: list[str], tell: int) -> NoReturn:
    """Turns into the command; `tell` closes when that worked, else it gets the error number."""
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # should somebody kill the supervisor itself
        for number in RESET:
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(tell, str(error.errno).encode())
    finally:
        os._exit(127)


class Group:
    """The command's process group, and what strayed from it."""

    def __init__(self, leader: int, control: int, wake: int, parent: int) -> None:
        self.leader = leader
        self.control = control
        self.wake = wake
        self.parent = parent
        self.code: int | None = None  # of the leader, once it is dead
        self.deadline: float | None = None  # set by an order to stop

    def oversee(self) -> int:
        """Waits for the end of the command or an order, then leaves nothing alive; returns the leader's code."""
        while self.may_live(self.reap()):
            self.wait()
        give_up = time.monotonic() + UNKILLABLE
        while self.reap() and time.monotonic() < give_up:
            self.signal(signal.SIGKILL)
            self.sleep(0.02)
        return -signal.SIGKILL if self.code is None else self.code

    def may_live(self, left: bool) -> bool:
        """Whether to go on waiting, given whether anything is left."""
        if self.deadline is None:
            return self.code is None
        return left and time.monotonic() < self.deadline

    def reap(self) -> bool:
        """Reaps ended processes; returns whether anything of the command is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return not LINUX and self.exists()
            if pid == 0:
                return True
            if pid == self.leader:
                self.code = os.waitstatus_to_exitcode(status)

    def exists(self) -> bool:
        """Whether the group has a member that is alive."""
        try:
            os.killpg(self.leader, 0)
        except OSError:
            return False
        return True

    def wait(self) -> None:
        """Sleeps until a child ends, an order comes, or the time is up; a lost engine is the order to stop now."""
        self.sleep(LOOK if self.deadline is None else 0.05, self.control)
        if select.select([self.control], [], [], 0)[0]:
            self.obey()
        if os.getppid() != self.parent:
            self.deadline = 0.0

    def sleep(self, seconds: float, *fds: int) -> None:
        """Waits, at most until a child ends or something can be read."""
        if self.wake in select.select([self.wake, *fds], [], [], seconds)[0]:
            os.read(self.wake, 4096)

    def obey(self) -> None:
        """Reads the newest order; without an engine there will be none."""
        try:
            orders = os.read(self.control, 4096).decode().splitlines()
        except OSError:
            orders = []
        if orders:
            self.stop(float(orders[-1].split()[1]))
        else:
            self.lose_engine()

    def lose_engine(self) -> None:
        """The other end of CONTROL is gone: end everything now."""
        self.deadline = 0.0

    def stop(self, grace: float) -> None:
        """TERM now, KILL after the grace. A later order can only bring the end nearer."""
        deadline = time.monotonic() + grace
        if self.deadline is None:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)  # a stopped process takes its TERM only when it goes on
        self.deadline = deadline if self.deadline is None else min(deadline, self.deadline)

    def signal(self, number: int) -> None:
        """Signals the group, and each descendant that left it, once."""
        family = descendants(os.getpid())  # before the signal: without a subreaper it cuts them off
        signal_one(os.killpg, self.leader, number)
        for pid, group in family.items():
            if group != self.leader:
                signal_one(os.kill, pid, number)


def signal_one(kill: Callable[[int, int], None], target: int, number: int) -> None:
    """Signals a process that may be gone already, or may not be ours to signal."""
    try:
        kill(target, number)
    except OSError:
        pass


def descendants(root: int) -> dict[int, int]:
    """The process group of each descendant of `root`, by process id."""
    children: dict[int, list[tuple[int, int]]] = {}
    for pid, parent, group in processes() if LINUX else processes_by_ps():
        children.setdefault(parent, []).append((pid, group))
    found: dict[int, int] = {}
    parents = [root]
    while parents:
        for pid, group in children.get(parents.pop(), ()):
            found[pid] = group
            parents.append(pid)
    return found


def processes() -> Iterator[tuple[int, int, int]]:
    """Each process as id, parent, group, from /proc."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would double the start-up time
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        yield int(name), int(fields[1]), int(fields[2])


def processes_by_ps() -> Iterator[tuple[int, int, int]]:
    """The same, where there is no /proc."""
    with os.popen("ps -axo pid=,ppid=,pgid=") as listing:
        for line in listing:
            pid, parent, group = line.split()
            yield int(pid), int(parent), int(group)


if __name__ == "__main__":
    main()
