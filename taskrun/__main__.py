"""`taskrun` and `python -m taskrun`: a warm daemon executes the command line, or else this process does.

Importing this module and what it imports is all that a warm command pays for.
"""

import gc
import os
import sys
from _signal import SIG_BLOCK, SIGINT, pthread_sigmask  # type: ignore[import-not-found]

from taskrun import __version__
from taskrun.cli.fastpath.thin_client import INTERRUPTED, run_in_daemon
from taskrun.daemon.command_protocol import new_intent

APP = "taskrun.cli.app"  # imported when it is needed: it takes longer than a warm daemon's whole answer
LOCAL = "--local"  # user code runs in this process


def main() -> None:
    """Runs the command line of this process."""
    argv, intent = sys.argv[1:], new_intent()
    if argv == ["--version"]:
        print("taskrun", __version__)
        _exit(0)
    try:
        code = run_in_daemon(argv, intent)
        if code is None:
            code = _run_in_this_process(argv, intent)
    except KeyboardInterrupt:  # before the command has begun
        code = INTERRUPTED
    if LOCAL in argv:
        sys.exit(code)
    _exit(code)


def _run_in_this_process(argv: list[str], intent: str) -> int:
    """Imports the app, meanwhile without garbage collection and what its libraries can do without, and executes the line."""
    pthread_sigmask(SIG_BLOCK, {SIGINT})  # until the command can hear a Ctrl-C
    gc.disable()
    # asyncio needs no TLS, shutil no archives; msgspec finds the same in `typing`
    without = [] if LOCAL in argv else ["ssl", "bz2", "lzma", "typing_extensions"]
    sys.modules.update(dict.fromkeys(without))  # type: ignore[arg-type]
    app = __import__(APP, fromlist=["main"])
    for name in without:
        del sys.modules[name]
    gc.enable()
    return int(app.main(argv, intent))


def _exit(code: int) -> None:
    """Ends the process without cleaning up, which would take as long as starting did; all output is written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
    os._exit(code)


if __name__ == "__main__":
    main()
