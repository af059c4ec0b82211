"""What holds for all tests."""

from __future__ import annotations

import os
import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Sees to what the processes that tests start inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job of a shell: Ctrl-C would be ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Else each of the many processes would compile taskrun anew, which costs more than the rest of its start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    config.addinivalue_line("markers", "slow: only with TASKRUN_SLOW=1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out what is slow, unless it is asked for."""
    if not os.environ.get("TASKRUN_SLOW"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: set TASKRUN_SLOW=1"))
