"""Frames: what was put in comes out, however the stream is cut, and nothing too large is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrun.daemon.frames import HEAD, FrameInvalid, Unframer, frame, refusal
from taskrun.model.codec import encode_error
from taskrun.model.errors import InputInvalid, StepFailed


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(1, 20), min_size=1))
def test_payloads_come_out_as_they_went_in_however_the_stream_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame(payload, 100) for payload in payloads)
    unframer, found = Unframer(100), list[bytes]()
    while stream:
        cut = cuts[len(found) % len(cuts)]
        found += unframer.feed(stream[:cut])
        stream = stream[cut:]
    assert found == payloads
    assert not unframer.partial


def test_a_frame_over_the_cap_is_refused_by_its_head_alone() -> None:
    with pytest.raises(FrameInvalid, match="4,294,967,295 bytes is over the limit of 100"):
        Unframer(100).feed(HEAD.pack(2**32 - 1))
    with pytest.raises(FrameInvalid):
        frame(b"x" * 101, 100)


def test_a_frame_that_has_begun_is_known() -> None:
    unframer = Unframer(100)
    assert unframer.feed(frame(b"one", 100) + b"\0") == [b"one"]
    assert unframer.partial


def test_errors_cross_as_what_they_are() -> None:
    error = refusal(encode_error(InputInvalid("hello", [("a", "is missing")])))
    assert isinstance(error, InputInvalid)
    assert error.problems == [("a", "is missing")]
    assert isinstance(refusal(encode_error(StepFailed("s", "X", "m"))), StepFailed)


def test_an_error_that_is_not_ours_to_know_says_what_it_was() -> None:
    foreign = type("Strange", (Exception,), {"__module__": "nowhere"})
    error = refusal(encode_error(foreign("boo")))
    assert str(error) == "nowhere.Strange: boo"
