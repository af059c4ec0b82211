"""Names of files that are no UTF-8 go through the journal as they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrun.cli.sanitize import cell, to_json
from taskrun.model.byte_escapes import escaped, restored
from taskrun.model.codec import decode, encode, parse_json
from taskrun.model.errors import NotEncodable


@dataclass(frozen=True)
class Frozen:
    path: Path
    note: str | None = None


class Struct(msgspec.Struct, frozen=True):
    paths: list[str]


class Dict(TypedDict):
    path: str


@given(st.binary())
def test_every_name_of_a_file_survives(name: bytes) -> None:
    text = os.fsdecode(name)
    escaped(text).encode()  # UTF-8 can hold it
    assert os.fsencode(restored(escaped(text))) == name


@given(st.text())
def test_every_text_survives(text: str) -> None:
    assert restored(escaped(text)) == text


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("caf\udce9", str),
        ("caf\udce9", Any),
        ({"a\udce9": ["b\udcff", {"c": "\U0010ffe9"}]}, Any),
        (Path("/music/caf\udce9.mp3"), Path),
        (Frozen(Path("caf\udce9")), Frozen),
        (Struct(["\udcff", "plain"]), Struct),
        ({"path": "\udc80"}, Dict),
        (("a\udce9", 1), tuple[str, int]),
    ],
)
def test_values_come_back_as_they_were(value: Any, kind: Any) -> None:
    text = encode(value, "it")
    text.encode()
    assert decode(text, kind) == value


def test_json_from_python_may_hold_such_names_but_no_other_half_of_a_pair() -> None:
    assert parse_json('{"path": "caf\\udce9"}', "it") == {"path": "caf\udce9"}
    with pytest.raises(NotEncodable, match="an unpaired surrogate"):
        encode("\ud800\udce9", "it")


def test_screens_show_the_byte_and_json_has_it_as_python_does() -> None:
    kept = escaped("caf\udce9")
    assert cell(kept) == "caf\\xe9"
    assert to_json(kept) == '"caf\\udce9"'
