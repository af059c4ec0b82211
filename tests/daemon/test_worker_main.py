"""What comes through the pipe of a worker, whether its event loop is free or blocked."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterable
from typing import cast

from taskrun.daemon.frames import PIPE_CAP, FrameReader, frame
from taskrun.daemon.workers.worker_main import Control, DrainedExecutor
from taskrun.daemon.workers.worker_rpc import DECODE, ENCODE, Answer, Ask, Envelope, PipePeer, Tell
from taskrun.engine import messages as m


class Worker:
    """The executor of a worker, and the peer that its messages come to."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def answer(self, peer: m.Peer, message: m.Asked) -> None:
        """Answers a request."""

    def receive(self, envelopes: Iterable[Envelope]) -> None:
        self.heard += [cast(m.Pause, cast(Tell, envelope).message).run for envelope in envelopes]

    async def has_heard(self, run: str) -> None:
        async with asyncio.timeout(20):
            while run not in self.heard:
                await asyncio.sleep(0)


def told(*runs: str) -> bytes:
    return b"".join(frame(ENCODE(Tell(m.Pause(run=run))), PIPE_CAP) for run in runs)


def received(theirs: socket.socket) -> Envelope:
    (payload,) = FrameReader(PIPE_CAP).feed(theirs.recv(65536))
    return cast(Envelope, DECODE(payload))


async def play() -> None:
    """Blocks the loop of a worker while messages come."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    worker = Worker()
    control = Control(ours, FrameReader(PIPE_CAP), [ENCODE(Tell(m.Pause(run="early")))], "/")
    control.begin(cast(DrainedExecutor, worker), cast(PipePeer, worker))
    theirs.sendall(told("free"))
    await worker.has_heard("free")
    theirs.sendall(told("1", "2"))  # from here on the loop is blocked, by this code
    for number in (7, 8):
        theirs.sendall(frame(ENCODE(Ask(number, m.Prepare(job="a", input="{}"))), PIPE_CAP))
        answer = received(theirs)
        assert isinstance(answer, Answer) and answer.id == number
    theirs.sendall(told("3"))
    assert worker.heard == ["early", "free"]
    await worker.has_heard("3")
    assert worker.heard == ["early", "free", "1", "2", "3"]
    control.drained = True
    theirs.close()
    async with asyncio.timeout(20):
        await control.ended


def test_a_blocked_loop_changes_no_order_and_holds_up_no_request() -> None:
    command = [sys.executable, __file__]  # a process of its own, which such a pipe may end
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, start_new_session=True)
    assert (ended.returncode, ended.stdout) == (0, "played\n"), ended.stderr


if __name__ == "__main__":
    asyncio.run(play())
    print("played")
