"""What holds for all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Makes Ctrl-C work in what the tests start, also where they are a background job of a shell, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
