"""What `progress()` is given, as numbers and text that JSON holds. It may be anything: a bad call harms no run."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

from taskrun.model.stored_text import storable

LONGEST_NOTE = 1_000  # characters


class ProgressValues:
    """Reads the progress of one run.

    Parameters:
        complain: gets a line the first time that a value cannot be used.
    """

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._complained = False

    def plain(self, done: object, total: object, note: object) -> dict[str, Any] | None:
        """Returns the usable part of a progress; None if `done` is not a number."""
        amount = self._try("number", lambda: number(done))
        whole = None if total is None else self._try("total", lambda: number(total))
        text = self._try("note", lambda: storable(str(note))[:LONGEST_NOTE])
        return None if amount is None else {"done": amount, "total": whole, "note": text or ""}

    def _try(self, what: str, convert: Callable[[], Any]) -> Any:
        try:
            return convert()
        except Exception as error:  # it is an object of the user's, and may do anything
            if not self._complained:
                self._complained = True
                self._complain(f"progress() ignores its {what}: {described(error)}\n")
            return None


def number(value: Any) -> float:
    """Returns a number of any type as one that JSON holds.

    Raises:
        Exception: it is not a number, or not finite.
    """
    if isinstance(value, numbers.Integral) and abs(int(value)) < 1 << 53:
        return int(value)
    converted = float(value)
    if not math.isfinite(converted):
        raise ValueError(f"{converted} is not finite")
    return converted


def described(error: BaseException) -> str:
    """Returns type and text of an error; the type alone if its text raises."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__
