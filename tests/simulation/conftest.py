"""The options of the simulation: how many seeds, from which on, or just one."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options."""
    group = parser.getgroup("simulation")
    group.addoption("--seeds", type=int, default=2_000, help="how many seeds the simulation plays")
    group.addoption("--first-seed", type=int, default=0, help="the first of them")
    group.addoption("--seed", type=int, help="play just this seed")
