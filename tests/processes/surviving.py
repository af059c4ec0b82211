"""Begins and follows commands that survive, as an engine does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from taskrun.processes.command import CommandResult
from taskrun.processes.command_file import Record
from taskrun.processes.surviving_command import CommandKey, CommandSpec, SurvivingCommands
from tests.waiting import until_async


class Reader:
    """Follows a command."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.position = 0
        self.leaving = False
        self.full = False
        self.begun_at: list[float] = []

    def begun(self, at: float) -> None:
        self.begun_at.append(at)

    def take(self, lines: list[Record]) -> bool:
        self.lines += [line.text for line in lines]
        self.position = lines[-1].after
        return self.full

    async def durable(self) -> None: ...

    def leaves(self) -> bool:
        return self.leaving


KEY = CommandKey("run", 1, "step", 1)


def order(
    command: str | Sequence[str],
    *,
    call: str = "call",
    rerun: bool = True,
    timeout: float | None = None,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    cwd: str | None = None,
) -> CommandSpec:
    return CommandSpec("step", command, cwd, env, stdin, call, 1.0, timeout, 5.0, rerun)


class Engine:
    """Begins and follows commands, and lets go of them as an engine that dies does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def run(self, wanted: CommandSpec, reader: Reader | None = None) -> CommandResult:
        commands = SurvivingCommands(self.folder)
        reader = reader or Reader()
        try:
            return await commands.run(KEY, wanted, reader.position, reader)
        finally:
            await commands.close()

    async def run_until(self, wanted: CommandSpec, reader: Reader, holds: Callable[[], object]) -> None:
        """Follows a command until something holds, then leaves it."""
        running = asyncio.ensure_future(self.run(wanted, reader))
        await until_async(holds)
        reader.leaving = True
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        reader.leaving = False
