"""How text becomes lines, progress displays included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrun.processes.output_lines import LIVELY, LONGEST, OutputLines


def lines(*texts: str) -> list[str]:
    """The lines of a stream that is looked at when it has ended."""
    output = OutputLines()
    return [line for text in texts for line in output.feed(text)] + output.finish()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a\nb\n"], ["a", "b"]),
        (["a\n\nb"], ["a", "", "b"]),
        (["a", "b", "c\n"], ["abc"]),
        (["a\r\nb\r\n"], ["a", "b"]),
        (["a\r", "\nb"], ["a", "b"]),
        (["\r\n"], [""]),
        (["unended"], ["unended"]),
        (["1%\r2%\r3%\n"], ["3%"]),
        (["\r1%", "\r2%", "\r3%", "\n"], ["3%"]),
        (["1%\r", "2%\r", "3%\r"], ["3%"]),
        (["50", "%\r10", "0%"], ["100%"]),
        (["long text\rshort    \n"], ["short"]),
        (["50%\r    \r"], ["50%"]),  # taken away at its end
        (["50%\r\x1b[2K\r"], ["50%"]),
        (["a\r1%\nb\r2%\n"], ["1%", "2%"]),
        (["one\u2028line\x0b\n"], ["one\u2028line\x0b"]),
        ([], []),
    ],
)
def test_text_is_cut_into_lines_as_they_last_were(texts: list[str], expected: list[str]) -> None:
    assert lines(*texts) == expected


@given(st.lists(st.text(alphabet="ab \r\n", max_size=6), max_size=12))
def test_it_does_not_matter_how_the_text_arrives(texts: list[str]) -> None:
    assert lines(*texts) == lines("".join(texts))


def test_a_line_without_end_is_cut_into_pieces() -> None:
    text = "aé" * LONGEST
    pieces = lines(*(text[at : at + 1000] for at in range(0, len(text), 1000)))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= LONGEST


def test_what_is_kept_of_a_bar_that_never_ends_its_line_is_bounded() -> None:
    output = OutputLines()
    for percent in range(100_000):
        assert output.feed(f"\r{percent}") == []
    assert output.finish() == ["99999"]


def test_states_are_seen_at_most_ten_times_a_second_and_the_last_one_once() -> None:
    output = OutputLines()
    seen = []
    for tick in range(100):  # a second, in which the line changes every 10 ms
        output.feed(f"\r{tick}%")
        seen += [output.state(tick / 100)]
    states = [state for state in seen if state is not None]
    assert len(states) in (10, 11)
    assert states[0] == "0%"
    assert output.feed("\n") == ["99%"]


def test_a_state_that_was_seen_is_not_repeated_when_its_line_ends() -> None:
    output = OutputLines()
    output.feed("\r100%")
    assert output.state(1.0) == "100%"
    assert not output.restless
    assert output.state(2.0) is None
    assert output.feed("\n") == []
    assert output.feed("next\n") == ["next"]


def test_a_line_that_is_only_begun_is_not_seen_before_its_end() -> None:
    output = OutputLines()
    output.feed("a question: ")
    assert output.state(1.0) is None
    output.feed("\rnow it is a bar")
    assert output.state(1.0) == "now it is a bar"
    output.feed("\rtoo soon")
    assert output.state(1.0 + LIVELY / 2) is None
    assert output.restless
