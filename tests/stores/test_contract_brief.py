"""The contract of every store: brief records, and the pieces of what they leave out."""

from __future__ import annotations

from taskrun.model.records import CUT, EXCERPT, WHOLE, RunFilter, StepStatus
from taskrun.stores.base import Tx

from .records import keys, run, step

LARGE = '"' + "ü" * (WHOLE - 1) + '"'  # one character more than is whole
FITS = '"' + "ü" * (WHOLE - 2) + '"'


def test_a_brief_run_has_excerpts_in_place_of_what_is_large(tx: Tx) -> None:
    tx.add_run(run("a", input=LARGE))
    tx.add_run(run("b", input=FITS))
    b, a = tx.runs(RunFilter(brief=True))
    assert (a.id, a.input) == ("a", CUT + LARGE[:EXCERPT])
    assert b.input == FITS
    assert [found.input for found in tx.runs(RunFilter())] == [FITS, LARGE]


def test_the_pieces_of_a_value_are_the_value(tx: Tx) -> None:
    tx.add_run(run("a", input=LARGE))
    tx.put_step(step("a", "s", output=LARGE))
    for key, field in ((None, "input"), ("s", "output")):
        pieces = [tx.piece("a", key, field, start, 9_000) for start in range(0, 4 * 9_000, 9_000)]
        assert pieces[-1] == ""
        assert "".join(pieces) == LARGE


def test_steps_come_by_the_page_in_the_order_in_which_they_were_first_put(tx: Tx) -> None:
    for key in "cabd":
        tx.put_step(step("a", key, output=LARGE))
    tx.put_step(step("a", "c", status=StepStatus.SUCCEEDED))
    tx.put_step(step("b", "other"))
    first = tx.step_page("a", 0, 3)
    assert keys([found for _, found in first]) == ["c", "a", "b"]
    assert keys([found for _, found in tx.step_page("a", first[-1][0], 3)]) == ["d"]
    assert keys([found for _, found in tx.step_page("a", 0, -2)]) == ["b", "d"]
    assert first[1][1].output == CUT + LARGE[:EXCERPT]


def test_the_step_that_a_run_is_at_is_the_last_of_those_under_way(tx: Tx) -> None:
    for key, status in (("a", "failed"), ("b", "running"), ("c", "failed"), ("d", "running"), ("e", "succeeded")):
        tx.put_step(step("x", key, status=StepStatus(status)))
    at, failed = tx.open_step("x"), tx.failed_step("x")
    assert at is not None and failed is not None
    assert (at.key, failed.key) == ("d", "c")
    assert tx.count_steps("x", -1) == (5, 2)
    assert tx.count_steps("x", 3) == (3, 2)


def test_children_come_from_the_oldest_on_where_they_are_to_be_read_to_the_end(tx: Tx) -> None:
    seqs = [tx.add_run(run(name, parent="p")).seq for name in "abc"]
    page = tx.runs(RunFilter(parent="p", after=seqs[0], limit=1, oldest_first=True))
    assert [found.id for found in page] == ["b"]
