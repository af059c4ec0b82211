"""What became of batches whose COMMIT failed: those that turn out to have been written keep their answers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from taskrun.stores.base import Answer, Tx

Fn = Callable[[Tx], object]


class Outcomes:
    """The batch of one writer whose outcome is not known, and answers of those that were written after all.

    They are kept until a commit that answers with them is durable: any number of faults may come in a row.
    """

    def __init__(self) -> None:
        self.unknown: int | None = None  # the number of the batch
        self._answers: list[tuple[Fn, Answer]] = []  # of that batch
        self._done: list[tuple[Fn, Answer]] = []

    def lost(self, number: int, fns: Sequence[Fn], answers: Sequence[Answer]) -> None:
        """Keeps a batch of which it is not known whether it was written."""
        known = self.known(fns)
        self.unknown = number
        self._answers = [(fn, answer) for fn, answer, done in zip(fns, answers, known, strict=True) if done is None]

    def found(self, written: bool) -> None:
        """Takes in what became of it."""
        self.unknown = None
        if written:
            self._done += self._answers
        self._answers = []

    def known(self, fns: Sequence[Fn]) -> list[Answer | None]:
        """Returns for each function the answer that it had in a batch that was written, None where it is to be run."""
        if not self._done:
            return [None] * len(fns)
        kept: dict[Fn, deque[Answer]] = {}
        for fn, answer in self._done:
            kept.setdefault(fn, deque()).append(answer)
        return [kept[fn].popleft() if kept.get(fn) else None for fn in fns]

    def forget(self, fns: Sequence[Fn]) -> None:
        """Drops the kept answers of functions that nobody will ask for again."""
        if not self._done:
            return
        over = Counter(fns)
        left = []
        for fn, answer in self._done:
            if over[fn] > 0:
                over[fn] -= 1
            else:
                left.append((fn, answer))
        self._done = left
