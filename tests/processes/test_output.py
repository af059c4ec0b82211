from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrun.processes.excerpt import Excerpt
from taskrun.processes.output import Decoder


def text(*chunks: bytes) -> str:
    out: list[str] = []
    decoder = Decoder(out.append)
    for chunk in chunks:
        decoder.feed(chunk)
    decoder.finish()
    return "".join(out)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"a\nb\n"], "a\nb\n"),
        ([b"1%\r2%\r"], "1%\r2%\r\n"),
        ([b"un", b"finished"], "unfinished\n"),
        ([b"caf\xc3", b"\xa9\n"], "café\n"),
        ([b"\xff\n"], "\ufffd\n"),
        ([b"cut\xc3"], "cut\ufffd\n"),
        ([], ""),
    ],
)
def test_bytes_become_text_and_the_last_line_is_ended(chunks: list[bytes], expected: str) -> None:
    assert text(*chunks) == expected


@given(st.lists(st.text(alphabet="ab\r\né\u2028", max_size=5).map(str.encode) | st.binary(max_size=4), max_size=12))
def test_it_does_not_matter_how_the_bytes_arrive(chunks: list[bytes]) -> None:
    assert text(*chunks) == text(b"".join(chunks))


def test_whoever_gets_the_text_says_whether_that_is_enough() -> None:
    assert Decoder(lambda _: True).feed(b"text")
    assert not Decoder(lambda _: None).feed(b"text")
    assert not Decoder(lambda _: True).feed(b"\xc3")  # nobody got anything


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


@pytest.mark.parametrize("stream", [b"\0" * 900, b"\0" * 9000, b"\x01a" * 450, b"\xff" * 900, b'"' * 900])
def test_what_is_kept_of_a_binary_stream_fits_the_limit_as_it_is_recorded(stream: bytes) -> None:
    excerpt = Excerpt(1000)
    excerpt.add(stream)
    text = excerpt.text()
    assert len(msgspec.json.encode(text)) <= 1000
    head, marker, tail = re.fullmatch(r"(.+)\n… (\d+) bytes left out …\n(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    assert len(head) + int(marker) + len(tail) == len(stream)
