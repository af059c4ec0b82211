"""Known faults, each put back in by a patch: the simulation must find every one of them, else it proves nothing."""

from __future__ import annotations

from collections.abc import Callable

HOLES: dict[str, Callable[[], None]] = {}
