"""How a command that survives is followed and ended: by the socket to its supervisor, by its file alone, or not any more."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from taskrun.processes.command_file import START, order_end
from taskrun.processes.detached_supervisor import READY
from taskrun.processes.kept_file import Identity, KeptFile
from taskrun.processes.leftovers import end_leftovers, signal_supervisor
from taskrun.processes.process import OVERDUE
from taskrun.processes.threads import in_thread

POLL = 0.1  # seconds between two looks at a command that was adopted
# seconds after which a supervisor that has got a further command is made to go on, should it have been stopped
NUDGE = 0.5


class Link(Protocol):
    """By what a command is followed."""

    def over(self) -> bool:
        """Whether nothing more comes of it: its supervisor is gone, or free for another command."""
        ...

    async def wait(self, seconds: float | None) -> None:
        """Waits until there may be something new, at most so long."""
        ...

    def stop(self, grace: float) -> None:
        """Orders its end."""
        ...

    def close(self) -> None:
        """Follows it no longer."""
        ...


class Live:
    """A supervisor that was forked for this worker, with the command that it has: it says when there is something new.

    Parameters:
        spare: the supervisors that wait for a command; this one joins them when its command has ended by itself.
    """

    _file: KeptFile  # of the command

    def __init__(self, control: socket.socket, spare: list[Live]) -> None:
        self._control = control
        self._spare = spare
        self._identity: Identity | None = None  # by which it is known once it has had a command
        self._nudge: asyncio.TimerHandle | None = None
        self._ready = False  # for the next command
        self._gone = False
        self._news = asyncio.Event()
        control.setblocking(False)
        asyncio.get_running_loop().add_reader(control.fileno(), self._hear)

    def begin(self, file: KeptFile, fds: Sequence[int]) -> None:
        """Gives it a command.

        Raises:
            OSError: it is gone.
        """
        self._file = file
        self._ready = False
        self._news.clear()
        socket.send_fds(self._control, [b"c"], fds)
        if self._identity is not None:
            loop = asyncio.get_running_loop()
            self._nudge = loop.call_later(NUDGE, signal_supervisor, self._identity, signal.SIGCONT)

    def over(self) -> bool:
        """Whether its supervisor is free for another command, or gone."""
        return self._ready or self._gone

    async def wait(self, seconds: float | None) -> None:
        """Waits until there is something new."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    def stop(self, grace: float) -> None:
        """Orders its end; a supervisor that was stopped has to go on for that."""
        with suppress(OSError):
            self._control.send(f"stop {grace}\n".encode())
        signal_supervisor(self._file.identity(), signal.SIGCONT)

    def close(self) -> None:
        """Lets its supervisor wait for the next command, or go on by itself with this one."""
        if self._nudge is not None:
            self._nudge.cancel()
        if self._ready:
            self._identity = self._identity or self._file.identity()
            self._spare.append(self)
        else:
            self.dismiss()

    def dismiss(self) -> None:
        """Has no further command for it."""
        if self in self._spare:
            self._spare.remove(self)
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()

    def _hear(self) -> None:
        try:
            words = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        self._ready, self._gone = words.endswith(READY), not words
        self._news.set()
        if self in self._spare:
            self.dismiss()
        elif self._gone:
            asyncio.get_running_loop().remove_reader(self._control.fileno())


class Adopted:
    """A command that somebody else has begun."""

    def __init__(self, file: KeptFile) -> None:
        self._file = file

    def over(self) -> bool:
        """Whether its supervisor is gone."""
        return self._file.free()

    async def wait(self, seconds: float | None) -> None:
        """Waits a little."""
        await asyncio.sleep(POLL if seconds is None else min(POLL, seconds))

    def stop(self, grace: float) -> None:
        """Orders its end; the grace is the one that it was begun with."""
        order_end(self._file.fd)
        signal_supervisor(self._file.identity(), signal.SIGUSR1 if grace else signal.SIGUSR2)
        signal_supervisor(self._file.identity(), signal.SIGCONT)

    def close(self) -> None:
        """There is nothing to let go of."""


class Ended:
    """A command that ended while nobody followed it: all that is left is to read what it printed."""

    def over(self) -> bool:
        """It is."""
        return True

    async def wait(self, seconds: float | None) -> None:
        """There is nothing to wait for."""

    def stop(self, grace: float) -> None:
        """There is nothing to end."""

    def close(self) -> None:
        """There is nothing to let go of."""


async def end_by_order(file: KeptFile, link: Link, grace: float) -> None:
    """Orders the end of a command and returns when nothing of it is left. A cancel during that ends the grace, not the wait."""
    loop = asyncio.get_running_loop()
    cancelled: asyncio.CancelledError | None = None
    link.stop(grace)
    deadline = loop.time() + grace + OVERDUE
    while not link.over() and (left := deadline - loop.time()) > 0:
        try:
            await link.wait(left)
        except asyncio.CancelledError as error:
            cancelled = error
            link.stop(0)
            deadline = min(deadline, loop.time() + OVERDUE)
    if not link.over():
        signal_supervisor(file.identity(), signal.SIGKILL)
    facts = file.begun()
    if facts is not None and not (link.over() and file.ended(START, facts)):
        await asyncio.shield(in_thread(end_leftovers, file.identity()))
    if cancelled is not None:
        raise cancelled
