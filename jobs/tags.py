"""What a song says of itself: its tags, its length, its cover and the colours of that. For `music.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import mutagen
from mutagen.id3 import ID3
from PIL import Image


class Tags(TypedDict):
    """The names of a song; empty where nobody knows."""

    title: str
    artist: str
    album: str
    genre: str
    year: str


def open_tagged(song: Path) -> Any:
    """Returns mutagen's view of a song, None where it has none; ffmpeg alone decides what is a song."""
    try:
        return mutagen.File(song)
    except mutagen.MutagenError:
        return None


def read_tags(song: Path) -> Tags:
    """Returns the tags of a song. One without a title is called as its file."""
    tags = getattr(open_tagged(song), "tags", None)
    return Tags(
        title=_first(tags, "TIT2", "title") or song.stem,
        artist=_first(tags, "TPE1", "artist"),
        album=_first(tags, "TALB", "album"),
        genre=_first(tags, "TCON", "genre"),
        year=_first(tags, "TDRC", "date"),
    )


def _first(tags: Any, frame: str, comment: str) -> str:
    """Returns the first value of an ID3 frame (mp3, wav) or of a Vorbis comment (flac)."""
    values = (tags.get(key) for key in (frame, comment)) if tags is not None else ()
    return next((str(value[0]).strip() for value in values if value), "")


def read_duration(song: Path) -> float | None:
    """Returns the length of a song in seconds, None where its header does not tell."""
    length = getattr(getattr(open_tagged(song), "info", None), "length", None)
    return float(length) if length else None


def extract_cover(song: Path, stem: Path) -> str | None:
    """Writes the embedded cover beside the other files of a song; returns its path, None where there is none."""
    picture = _picture(open_tagged(song))
    if picture is None:
        return None
    cover = stem.with_name(stem.name + (".png" if picture.startswith(b"\x89PNG") else ".jpg"))
    part = cover.with_name(f".{cover.name}.part")
    cover.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(picture)
    part.replace(cover)
    return str(cover)


def _picture(tagged: Any) -> bytes | None:
    tags = getattr(tagged, "tags", None)
    pictures: Any = getattr(tagged, "pictures", [])
    if isinstance(tags, ID3):
        pictures = tags.getall("APIC")  # type: ignore[no-untyped-call]
    return next((bytes(picture.data) for picture in pictures if picture.data), None)


def dominant_colours(cover: str, count: int = 5) -> list[str]:
    """Returns the main colours of an image as `#rrggbb`, the most frequent first."""
    with Image.open(cover) as image:
        small = image.convert("RGB")
    small.thumbnail((96, 96))
    reduced = small.quantize(count, method=Image.Quantize.FASTOCTREE).convert("RGB")
    counted: Any = reduced.getcolors(count) or []
    return ["#{:02x}{:02x}{:02x}".format(*colour) for _, colour in sorted(counted, reverse=True)]
