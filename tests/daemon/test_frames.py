"""Frames: what was put in comes out, however the stream is cut, and nothing too large is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrun.daemon import frames
from taskrun.daemon.frames import MORE, FrameInvalid, FrameReader, MessageReader, frame, message_frames
from taskrun.daemon.protocol import remote_error
from taskrun.model.codec import encode_error
from taskrun.model.errors import InputInvalid, StepFailed


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(1, 20), min_size=1))
def test_payloads_come_out_as_they_went_in_however_the_stream_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame(payload, 100) for payload in payloads)
    reader, found = FrameReader(100), list[bytes]()
    while stream:
        cut = cuts[len(found) % len(cuts)]
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert found == payloads
    assert not reader.partial


def test_a_frame_over_the_cap_is_refused_by_its_head_alone() -> None:
    with pytest.raises(FrameInvalid, match="4,294,967,295 bytes is over the limit of 100"):
        list(FrameReader(100).feed(b"\xff" * 4))
    with pytest.raises(FrameInvalid):
        frame(b"x" * 101, 100)


def test_a_frame_that_has_begun_is_known() -> None:
    reader = FrameReader(100)
    assert list(reader.feed(frame(b"one", 100) + b"\0")) == [b"one"]
    assert reader.partial


def test_the_cap_may_change_between_two_frames() -> None:
    reader, found = FrameReader(5), list[bytes]()
    for payload in reader.feed(frame(b"hello", 5) + frame(b"x" * 50, 100)):
        found.append(payload)
        reader.cap = 100
    assert found == [b"hello", b"x" * 50]


@given(st.lists(st.binary(max_size=50)), st.integers(1, 60))
def test_a_message_of_any_size_comes_out_as_it_went_in(payloads: list[bytes], cut: int) -> None:
    messages = [b"{" + payload for payload in payloads]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "CLIENT_CAP", 8)
        patch.setattr(frames, "PIECE", 7)
        stream = b"".join(part for message in messages for part in message_frames(message))
    found, taking = list[bytes](), MessageReader(8, 51)
    for at in range(0, len(stream), cut):
        found += taking.feed(stream[at : at + cut])
    assert found == messages
    assert not taking.partial


def test_a_message_over_its_limit_is_refused_before_its_end() -> None:
    taking = MessageReader(100, 150)
    assert list(taking.feed(frame(MORE + b"x" * 99, 100))) == []
    assert taking.partial == 99
    with pytest.raises(FrameInvalid, match="198 bytes is over the limit of 150"):
        list(taking.feed(frame(MORE + b"x" * 99, 100)))


def test_errors_cross_as_what_they_are() -> None:
    error = remote_error(encode_error(InputInvalid("hello", [("a", "is missing")])))
    assert isinstance(error, InputInvalid)
    assert error.problems == [("a", "is missing")]
    assert isinstance(remote_error(encode_error(StepFailed("s", "X", "m"))), StepFailed)


def test_an_error_that_is_not_ours_to_know_says_what_it_was() -> None:
    foreign = type("Strange", (Exception,), {"__module__": "nowhere"})
    error = remote_error(encode_error(foreign("boo")))
    assert str(error) == "nowhere.Strange: boo"
