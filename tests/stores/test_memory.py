"""The sorted structures of the memory store, held against plain ones."""

from __future__ import annotations

from bisect import insort

from hypothesis import given
from hypothesis import strategies as st

from taskrun.stores import indexes
from taskrun.stores.indexes import Index, SortedItems

items = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 999)), max_size=300, unique=True)


@given(items, st.randoms(use_true_random=False), st.tuples(st.integers(0, 9)))
def test_sorted_items_are_as_a_sorted_list(added: list[tuple[int, int]], dice: object, bound: tuple[int]) -> None:
    removed = set(dice.sample(added, len(added) // 2))  # type: ignore[attr-defined]
    few = indexes._PIECE
    indexes._PIECE = 4
    try:
        found, plain = SortedItems(), list[tuple[int, int]]()
        for item in added:
            found.add(item)
            insort(plain, item)
        for item in removed:
            found.remove(item)
            plain.remove(item)
    finally:
        indexes._PIECE = few
    assert (list(found), list(reversed(found)), len(found)) == (plain, plain[::-1], len(plain))
    assert list(found.since(bound)) == [item for item in plain if item >= bound]


def test_no_piece_grows_with_the_number_of_items() -> None:
    rising, falling = SortedItems(), SortedItems()
    for n in range(5_000):
        rising.add((n,))
        falling.add((-n,))
    for kept in (rising, falling):
        assert max(map(len, kept._pieces)) <= indexes._PIECE
        assert len(kept._pieces) < 5_000 / indexes._PIECE * 3


def test_a_group_that_is_empty_again_is_forgotten() -> None:
    index = Index[int](lambda n: (n % 2, (n,)) if n else None)
    index.move(None, 1)
    index.move(1, 2)
    assert (list(index.group(1)), list(index.group(0))) == ([], [(2,)])
    index.move(2, 0)
    assert index._groups == {}
