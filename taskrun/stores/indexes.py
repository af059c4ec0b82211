"""Sorted structures of the memory store: what an index is to a database."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

Item = tuple[Any, ...]
R = TypeVar("R")

_PIECE = 512


class SortedItems:
    """A sorted list in pieces, so that an insertion or a removal moves no more than one piece of it."""

    def __init__(self) -> None:
        self._pieces: list[list[Item]] = []
        self._tops: list[Item] = []  # the last item of each piece
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        for piece in self._pieces:
            yield from piece

    def __reversed__(self) -> Iterator[Item]:
        for piece in reversed(self._pieces):
            yield from reversed(piece)

    def since(self, bound: Item) -> Iterator[Item]:
        """Iterates from the first item that is not below `bound`."""
        at = bisect_left(self._tops, bound)
        if at < len(self._pieces):
            yield from self._pieces[at][bisect_left(self._pieces[at], bound) :]
            for piece in self._pieces[at + 1 :]:
                yield from piece

    def add(self, item: Item) -> None:
        """Inserts an item at its place."""
        self._length += 1
        if not self._pieces:
            self._pieces, self._tops = [[item]], [item]
            return
        at = min(bisect_left(self._tops, item), len(self._tops) - 1)
        piece = self._pieces[at]
        insort(piece, item)
        if len(piece) > _PIECE:
            self._split(at)
        else:
            self._tops[at] = piece[-1]

    def remove(self, item: Item) -> None:
        """Takes an item out that is there."""
        self._length -= 1
        at = bisect_left(self._tops, item)
        piece = self._pieces[at]
        del piece[bisect_left(piece, item)]
        if piece:
            self._tops[at] = piece[-1]
        else:
            del self._pieces[at], self._tops[at]

    def _split(self, at: int) -> None:
        piece = self._pieces[at]
        # A piece that grew at its end, as most do, stays full; any other is halved.
        cut = _PIECE if at == len(self._pieces) - 1 else _PIECE // 2
        self._pieces[at : at + 1] = [piece[:cut], piece[cut:]]
        self._tops[at : at + 1] = [piece[cut - 1], piece[-1]]


class Index(Generic[R]):
    """Sorted items in groups, kept in step with records.

    Parameters:
        entry: gives a record's group and its item in it, or None for a record that is not in the index.
    """

    def __init__(self, entry: Callable[[R], tuple[Hashable, Item] | None]) -> None:
        self._entry = entry
        self._groups: dict[Hashable, SortedItems] = {}

    def group(self, name: Hashable) -> SortedItems:
        """Returns the items of a group; not to be changed."""
        return self._groups.get(name, _NONE)

    def groups(self) -> list[Any]:
        """Returns the names of the groups that hold something."""
        return list(self._groups)

    def move(self, old: R | None, new: R | None) -> None:
        """Replaces the entry of a record by that of its successor."""
        was = None if old is None else self._entry(old)
        now = None if new is None else self._entry(new)
        if was != now:
            self._remove(was)
            self._add(now)

    def _add(self, entry: tuple[Hashable, Item] | None) -> None:
        if entry is not None:
            if (items := self._groups.get(entry[0])) is None:
                items = self._groups[entry[0]] = SortedItems()
            items.add(entry[1])

    def _remove(self, entry: tuple[Hashable, Item] | None) -> None:
        if entry is not None:
            items = self._groups[entry[0]]
            items.remove(entry[1])
            if not items:
                del self._groups[entry[0]]


_NONE = SortedItems()
