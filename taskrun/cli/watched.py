"""`python -m taskrun.cli.watched`: the daemon of `taskrun watch`, started by `daemon.launch`. It ends with that command."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from taskrun.cli.counter import CommandCounter
from taskrun.daemon.desk import House
from taskrun.daemon.launch import READY
from taskrun.daemon.server import Word, serve
from taskrun.daemon.watching import Watching
from taskrun.model.codec import encode_error
from taskrun.model.config import Config
from taskrun.rules.schedule_tables import read_config


class Attached(Watching):
    """Watches as long as a pipe is open.

    Parameters:
        end: the pipe.
    """

    def __init__(self, end: int) -> None:
        super().__init__()
        self._end = end

    async def watch(self, house: House, read_config: Callable[[], Config]) -> None:
        """Watches until it is cancelled; stops the daemon when the other end of the pipe is gone."""
        asyncio.get_running_loop().add_reader(self._end, house.stop)
        try:
            await super().watch(house, read_config)
        finally:
            asyncio.get_running_loop().remove_reader(self._end)


def main() -> None:
    """Runs the daemon; says through a pipe whether it could start."""
    parser = argparse.ArgumentParser(prog="taskrun.cli.watched")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--ready", type=int, required=True)
    parser.add_argument("end", type=int)
    options = parser.parse_args()
    for descriptor in (options.ready, options.end):
        os.set_inheritable(descriptor, False)
    word = Word(options.ready)
    try:
        config = read_config(options.config, os.environ)
        serve(
            config,
            foreground=False,
            ready=lambda: word.say(READY),
            counter=CommandCounter(),
            watcher=Attached(options.end),
        )
    except Exception as error:
        word.say(msgspec.json.encode(encode_error(error)))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
