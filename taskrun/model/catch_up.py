"""What becomes of the slots of a schedule that were missed."""

from __future__ import annotations

from typing import Literal

CatchUp = Literal["skip", "one", "all"]  # those that run after all: none, the newest one, or all
