"""`python -m taskrun.cli.daemon_main MODE`: the process of the daemon, with the thread that executes command lines.

It is an entry point of the command line because that thread is: the daemon itself does not know the commands. Modes:
`detached` (as `daemon.launch` starts it), `attached` (for `taskrun watch`: it reloads code that changes, and ends with that
command), `foreground` (what `taskrun daemon run` becomes) and `worker` (what `taskrun worker` becomes: no daemon at all).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from msgspec.structs import replace

from taskrun.cli.exit_codes import Code, explain
from taskrun.cli.fastpath.command_thread import CommandThread
from taskrun.cli.lazy_imports import CODE_WATCHER, STANDALONE, import_late
from taskrun.daemon.launch import ATTACHED, DETACHED, FOREGROUND, WORKER, ReadyPipe
from taskrun.daemon.server import serve
from taskrun.rules.schedule_tables import read_config


def main() -> int:
    """Runs the daemon until it is told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="taskrun.cli.daemon_main")
    parser.add_argument("mode", choices=(DETACHED, ATTACHED, FOREGROUND, WORKER))
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--ready", type=int, help="the pipe to the command that launched it")
    parser.add_argument("--until", type=int, help="the pipe whose other end the command that watches holds")
    parser.add_argument("--jobs", nargs="*", help="of a worker: those that it executes")
    parser.add_argument("--concurrency", type=int, help="of a worker: how many runs at once")
    parser.add_argument("--health", type=Path, help="of a worker: the file that says that it is well")
    options = parser.parse_args()
    if options.mode == WORKER:
        return _worker(options)
    if options.mode == FOREGROUND:
        return _foreground(options.config)
    if options.mode == DETACHED and os.fork():
        os._exit(0)
    return _launched(options.config, ReadyPipe(options.ready), options.until)


def _foreground(config: Path) -> int:
    """Says on standard error when it is ready, or why it cannot start."""
    try:
        serve(
            read_config(config, os.environ),
            foreground=True,
            ready=lambda: print("the daemon is ready; stop it with Ctrl-C", file=sys.stderr),
            command_server=CommandThread(),
        )
    except Exception as error:
        explained = explain(error)
        sys.stderr.write(explained.text())
        return explained.code
    return Code.DONE


def _worker(options: argparse.Namespace) -> int:
    """Works without a socket; the code says whether it was drained when it was told to stop."""
    try:
        config = read_config(options.config, os.environ)
        if options.concurrency is not None:
            config = replace(config, concurrency=options.concurrency)
        only = frozenset(options.jobs) if options.jobs else None
        drained = import_late(STANDALONE).work(replace(config, workers=max(1, config.workers)), only, options.health)
    except Exception as error:
        explained = explain(error)
        sys.stderr.write(explained.text())
        return explained.code
    return Code.DONE if drained else Code.FAILED


def _launched(config: Path, ready: ReadyPipe, until: int | None) -> int:
    """Says through a pipe whether it could start."""
    try:
        serve(
            read_config(config, os.environ),
            foreground=False,
            ready=ready.started,
            command_server=CommandThread(),
            watcher=None if until is None else import_late(CODE_WATCHER).CodeWatcher(until),
        )
    except Exception as error:
        ready.failed(error)
        return Code.FAILED
    return Code.DONE


if __name__ == "__main__":
    sys.exit(main())
