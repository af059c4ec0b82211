from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrun.processes.output import LINE_LIMIT, Excerpt, Lines

pieces = st.lists(st.text(alphabet="ab\r\né\u2028", max_size=5).map(str.encode) | st.binary(max_size=4), max_size=12)


def lines(*chunks: bytes) -> list[str]:
    out: list[str] = []
    cutter = Lines(out.append)
    for chunk in chunks:
        cutter.feed(chunk)
    cutter.flush()
    return out


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a\n\nb"], ["a", "", "b"]),
        ([b"a\r\nb\r\n"], ["a", "b"]),
        ([b"a\r", b"\nb"], ["a", "b"]),
        ([b"1%\r2%\r3%\n"], ["1%", "2%", "3%"]),
        ([b"un", b"finished"], ["unfinished"]),
        ([b"caf\xc3", b"\xa9\n"], ["café"]),
        ([b"\xff\n"], ["\ufffd"]),
        (["one\u2028line\x0b\n".encode()], ["one\u2028line\x0b"]),
        ([], []),
    ],
)
def test_bytes_are_cut_into_lines(chunks: list[bytes], expected: list[str]) -> None:
    assert lines(*chunks) == expected


@given(pieces)
def test_it_does_not_matter_how_the_bytes_arrive(chunks: list[bytes]) -> None:
    assert lines(*chunks) == lines(b"".join(chunks))


@given(pieces)
def test_lines_are_what_lies_between_the_ends_of_lines(chunks: list[bytes]) -> None:
    whole = re.split(rb"\r\n|\r|\n", b"".join(chunks))
    expected = whole if whole[-1] else whole[:-1]
    assert lines(*chunks) == [line.decode(errors="replace") for line in expected]


def test_a_progress_line_is_handed_on_at_once() -> None:
    out: list[str] = []
    Lines(out.append).feed(b"50%\r")
    assert out == ["50%"]


def test_a_line_without_end_is_cut_into_pieces_at_characters() -> None:
    text = "aé" * LINE_LIMIT
    data = text.encode()
    pieces = lines(*(data[at : at + 1000] for at in range(0, len(data), 1000)))
    assert "".join(pieces) == text
    assert max(len(piece.encode()) for piece in pieces) <= LINE_LIMIT


def test_a_short_stream_is_kept_whole() -> None:
    excerpt = Excerpt(1000)
    excerpt.add(b"a" * 400)
    excerpt.add(b"b" * 400)
    assert excerpt.text() == "a" * 400 + "b" * 400


@given(st.lists(st.integers(0, 3000), max_size=8))
def test_of_a_long_stream_head_and_tail_are_kept_and_the_rest_is_counted(sizes: list[int]) -> None:
    excerpt = Excerpt(1000)
    stream = bytes(ord("a") + at % 26 for at in range(sum(sizes)))
    start = 0
    for size in sizes:
        excerpt.add(stream[start : start + size])
        start += size
    text = excerpt.text()
    assert len(text.encode()) <= 1000
    head, marker, tail = re.fullmatch(r"([a-z]*)(?:\n… (\d+) bytes left out …\n)?([a-z]*)", text).groups()  # type: ignore[union-attr]
    assert stream.startswith(head.encode())
    assert stream.endswith(tail.encode())
    assert len(head) + int(marker or 0) + len(tail) == len(stream)
