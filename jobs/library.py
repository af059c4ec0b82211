"""The library: one SQLite table of songs, `TASKRUN_MUSIC_DB`. Written by the `store` step of `music.py`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

import aiosqlite

from jobs.audio import PROJECT
from jobs.tags import Tags

_TABLE = """
create table if not exists songs (
    path text primary key, title text not null, artist text not null, album text not null, genre text not null,
    year text not null, duration real, fingerprint text not null, ogg text not null, cover text,
    palette text not null, source text not null
)
"""
_STORE = """
insert or replace into songs
values (:path, :title, :artist, :album, :genre, :year, :duration, :fingerprint, :ogg, :cover, :palette, :source)
"""


class Metadata(Tags):
    """All that is known of a song. `source` tells whether the services knew it, `notes` what went without."""

    path: str
    duration: float | None
    fingerprint: str
    cover: str | None
    palette: list[str]
    source: Literal["lookup", "tags"]
    notes: list[str]


class Song(Metadata):
    """A song as the library keeps it."""

    ogg: str


def database() -> Path:
    """Returns the file of the library, `.taskrun/music.db` in the project unless the environment says otherwise."""
    return Path(os.environ.get("TASKRUN_MUSIC_DB") or PROJECT / ".taskrun" / "music.db").absolute()


async def store(song: Song) -> None:
    """Writes a song, in place of what was known of the same file before: doing it twice is doing it once."""
    database().parent.mkdir(parents=True, exist_ok=True)
    async with aiosqlite.connect(database()) as db:
        await db.execute(_TABLE)
        await db.execute(_STORE, {**song, "palette": json.dumps(song["palette"])})
        await db.commit()
