"""Commands that survive their worker, as the engine sees them: begun once, followed by whoever has the run, ended with it.

A command has one file (`command_file`), whose supervisor (`detached_supervisor`) goes on when the worker dies. Whoever comes to
its step takes what the file says: it begins the command, *adopts* one that is alive, takes the end of one that has ended, or
finds that it was cut off.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from taskrun.model.errors import WorkerCrashed
from taskrun.processes.command import CommandResult, stdin_file, words
from taskrun.processes.command_file import END, START, STDERR, STDOUT, STREAMS, End, Record, records
from taskrun.processes.command_link import POLL, Adopted, Ended, Link, Live, end_by_order
from taskrun.processes.kept_file import KeptFile, check_private
from taskrun.processes.launcher import Launcher
from taskrun.processes.leftovers import MARK, end_leftovers
from taskrun.processes.output import REST
from taskrun.processes.process_table import boot
from taskrun.processes.threads import in_thread

PORTION = 256 * 1024  # characters that are handed on at once
NAME = 200  # characters of a step's name in the file
KEPT = 4_000_000  # bytes of output that are handed on before their room in the file is given back


class CommandKey(NamedTuple):
    """Which execution of a command: of what step, in which attempt of the run, at which try."""

    run: str
    attempt: int
    step: str
    tries: int

    @property
    def name(self) -> str:
        """The name of its file."""
        step = blake2b(self.step.encode(), digest_size=12).hexdigest()
        return f"{self.run}.{self.attempt}.{step}.{self.tries}"


class CommandSpec(NamedTuple):
    """What to execute.

    Parameters:
        step: its name, for people.
        call: a digest of it; a file of another call is not of this command.
        now: the moment by the engine's clock.
        timeout: seconds after which it is ended where nobody follows it.
        rerun: whether it is begun again after it was cut off.
    """

    step: str
    command: str | Sequence[str]
    cwd: str | os.PathLike[str] | None
    env: Mapping[str, str] | None
    stdin: str | bytes | None
    call: str | None
    now: float
    timeout: float | None
    grace: float
    rerun: bool


class Reader(Protocol):
    """Who follows a command."""

    def begun(self, at: float) -> None:
        """It began at that moment by the engine's clock, and is alive."""
        ...

    def take(self, lines: list[Record]) -> bool:
        """Takes lines of its output; returns whether that is enough for now."""
        ...

    async def durable(self) -> None:
        """Returns when all that it has taken is in the journal."""
        ...

    def leaves(self) -> bool:
        """Whether a cancel only means that it follows no longer: the command goes on, and somebody else adopts it."""
        ...


class TimedOut(Exception):
    """It was ended because of its timeout while nobody followed it."""


class SurvivingCommands:
    """The commands of one executor.

    Parameters:
        folder: where their files are; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._launcher = Launcher()

    async def run(self, key: CommandKey, spec: CommandSpec, position: int, reader: Reader) -> CommandResult:
        """Follows a command to its end; begins it if that has not been done. Nothing that it started is left then.

        A cancel ends it, unless the reader only leaves.

        Parameters:
            position: how far its output is in the journal; 0 where the journal does not know of it.

        Raises:
            OSError: it could not be started.
            TimedOut: so it was, by its supervisor.
            WorkerCrashed: it was cut off, and is not to be begun again.
        """
        path = self.folder / key.name
        with suppress(FileNotFoundError):
            check_private(self.folder)
        output = _Output(reader, max(position, START), begun=position >= START)
        while True:
            with KeptFile(path) as file:
                link = await self._take_up(file, spec, output)
                if link is None:  # somebody is about to begin or to remove it
                    await asyncio.sleep(POLL)
                    continue
                try:
                    end = await output.follow(file, link)
                except asyncio.CancelledError:
                    if not reader.leaves():
                        await end_by_order(file, link, spec.grace)
                        output.take_rest(file)
                        file.remove()
                    raise
                finally:
                    link.close()
                if end is not None:
                    return _result(end, output)
                if file.begun() is None:  # whoever was to fork its supervisor has died
                    await asyncio.sleep(POLL)
                elif not file.is_there():
                    raise WorkerCrashed("the command was ended by somebody else", True)

    def forget(self, key: CommandKey) -> None:
        """Removes the file of a command whose end is in the journal."""
        with suppress(FileNotFoundError):
            os.unlink(self.folder / key.name)  # noqa: PTH108 - once for each command

    async def end_earlier(self, run_id: str, attempt: int, grace: float) -> None:
        """Ends those of a run that earlier attempts have left."""
        for path in files_of(self.folder, run_id):
            if int(path.name.split(".")[1]) < attempt:
                await end_command(path, grace)

    async def end(self, key: CommandKey, position: int, reader: Reader, grace: float) -> None:
        """Ends a command that its step will not follow any more, and hands on what it has printed.

        Parameters:
            position: how far its output is in the journal; 0 where the journal does not know of it.
        """
        with suppress(FileNotFoundError), KeptFile(self.folder / key.name, make=False) as file:
            try:
                await _end(file, grace)
            finally:
                _Output(reader, max(position, START), begun=position >= START).take_rest(file)
                file.remove()

    async def close(self) -> None:
        """Lets the commands go on by themselves."""
        self._launcher.dismiss()
        await in_thread(self._launcher.close)

    async def _take_up(self, file: KeptFile, spec: CommandSpec, output: _Output) -> Link | None:
        """Begins or adopts a command, or comes too late; returns what to follow it by, None while it cannot be told."""
        if not file.lock():
            facts = file.begun()
            if facts is None:
                return None
            if facts["call"] != spec.call:
                await end_by_order(file, Adopted(file), spec.grace)
                return None
            output.reader.begun(facts["at"])
            file.mark(adopted_at=time.time())
            return Adopted(file)
        if not file.is_there():
            return None
        facts = file.begun()
        if facts is None and output.begun and not spec.rerun:
            raise self._lost(file)
        if facts is not None and facts["call"] != spec.call:
            await in_thread(end_leftovers, file.identity())
            output.position = START
        elif facts is not None:
            if file.ended(output.position, facts):
                return Ended()  # no timeout counts any more: a missed one is in its END
            await in_thread(end_leftovers, file.identity())
            if not spec.rerun:
                raise self._lost(file)
        return self._begin(file, spec, output)

    def _lost(self, file: KeptFile) -> WorkerCrashed:
        file.remove()
        return WorkerCrashed("the command is gone and left no exit code, and is not to be run again", True)

    def _begin(self, file: KeptFile, spec: CommandSpec, output: _Output) -> Live:
        facts = {
            "step": spec.step[:NAME],
            "call": spec.call,
            "at": spec.now,
            "token": file.path.name,
            "boot": boot(),
        }
        file.begin(facts, output.position, synced=not spec.rerun)
        try:
            with ExitStack() as stack:
                given = [stack.enter_context(_spec_file(spec, facts))]
                if spec.stdin is not None:
                    given.append(stack.enter_context(stdin_file(spec.stdin)))
                link = self._launcher.begin(file, [file.lock_fd, *(each.fileno() for each in given)])
        except BaseException:
            file.remove()
            raise
        file.unlock()
        output.reader.begun(spec.now)
        return link


def _spec_file(spec: CommandSpec, facts: dict[str, Any]) -> IO[bytes]:
    """Returns a file without a name that says what to execute."""
    env = {**os.environ, **(spec.env or {}), MARK: facts["token"]}
    told: dict[str, Any] = {
        "command": words(spec.command),
        "cwd": os.path.abspath(spec.cwd or os.getcwd()),  # noqa: PTH100, PTH109 - bytes that are no text stay as they are
        "env": env,
        "timeout": spec.timeout,
        "grace": spec.grace,
    }
    file = _nameless_file()
    file.write(marshal.dumps(told))
    file.seek(0)
    return file


def _nameless_file() -> IO[bytes]:
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("taskrun"), "w+b", 0)
    return tempfile.TemporaryFile(buffering=0)


def _result(end: End, output: _Output) -> CommandResult:
    if end.how == "error":
        raise OSError(end.code, os.strerror(end.code), end.what)
    if end.how == "timeout":
        raise TimedOut
    return CommandResult(end.code, output.excerpts.get(STDOUT, ""), output.excerpts.get(STDERR, ""))


class _Output:
    """What a command prints, on its way from the file to a reader.

    Parameters:
        begun: whether the journal knows that it has begun.
    """

    def __init__(self, reader: Reader, position: int, begun: bool) -> None:
        self.reader = reader
        self.begun = begun
        self.position = position  # up to which it has been handed on
        self.excerpts: dict[int, str] = {}
        self._given_back = position

    async def follow(self, file: KeptFile, link: Link) -> End | None:
        """Hands on what there is and what comes; returns the END, None where there will be none."""
        while True:
            over = link.over()  # before the look: what it wrote is there
            while (portion := self._portion(file)).lines:
                full = self.reader.take(portion.lines)
                await asyncio.sleep(REST if full else 0)
                await self._give_back(file)
            if portion.end is not None and not over:
                await link.wait(POLL)  # until its supervisor is free for another command
            if portion.end is not None or over:
                return portion.end
            await link.wait(None)

    def take_rest(self, file: KeptFile) -> None:
        """Hands on what there is, at once."""
        while lines := self._portion(file).lines:
            self.reader.take(lines)

    def _portion(self, file: KeptFile) -> Portion:
        """Reads the next lines, or what comes behind the last."""
        lines: list[Record] = []
        size = 0
        for found in records(file.fd, self.position):
            if found.kind in STREAMS:
                lines.append(found)
                self.position = found.after
                size += len(found.text)
                if size > PORTION:
                    break
            elif lines:
                break
            elif found.kind == END:
                return Portion([], End.of(found.text))
            else:
                self.excerpts[found.kind] = found.text
        return Portion(lines, None)

    async def _give_back(self, file: KeptFile) -> None:
        """Gives back the room of what the journal has."""
        if self.position - self._given_back > KEPT:
            await self.reader.durable()
            self._given_back = self.position
            file.give_back(self.position)


class Portion(NamedTuple):
    """What is read at once: lines, or the END where there are no more."""

    lines: list[Record]
    end: End | None


def files_of(folder: Path, run_id: str = "") -> list[Path]:
    """Returns the files of a run's commands, or of all."""
    if not os.access(folder, os.F_OK):  # asked at the end of every run, which seldom has any
        return []
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
    return [folder / name for name in names if name.startswith(f"{run_id}." if run_id else "")]


def run_of(path: Path) -> str:
    """Returns the run that the command with this file belongs to."""
    return path.name.partition(".")[0]


class UnderWay(NamedTuple):
    """A command that is alive."""

    path: Path
    step: str
    pid: int | None  # None while it is about to begin
    adopted_at: float  # 0 where it is followed by who began it, if by anybody

    @property
    def run(self) -> str:
        """The run that it belongs to."""
        return run_of(self.path)


def under_way(folder: Path, run_id: str = "") -> list[UnderWay]:
    """Returns the commands in a folder that are alive, or those of a run."""
    found = []
    for path in sorted(files_of(folder, run_id)):
        with suppress(FileNotFoundError), KeptFile(path, make=False) as file:
            if not file.free() and (facts := file.begun()) is not None:
                found.append(UnderWay(path, facts["step"], file.processes().leader or None, file.marks().adopted_at))
    return found


def has_ended(path: Path) -> bool:
    """Whether the command with this file has ended by itself."""
    try:
        with KeptFile(path, make=False) as file:
            return (facts := file.begun()) is not None and file.ended(START, facts)
    except FileNotFoundError:
        return False


async def end_command(path: Path, grace: float, cut_off: bool = False) -> None:
    """Ends a command that nobody is to follow any more.

    Parameters:
        cut_off: it is to count as cut off, so that it is begun again when its run goes on; else its file goes too.
    """
    with suppress(FileNotFoundError), KeptFile(path, make=False) as file:
        if cut_off:
            file.mark(cut_off=True)
        await _end(file, grace)
        if not cut_off:
            file.remove()


async def _end(file: KeptFile, grace: float) -> None:
    if not file.lock():
        await end_by_order(file, Adopted(file), grace)
    elif (facts := file.begun()) is not None and not file.ended(START, facts):
        await in_thread(end_leftovers, file.identity())
