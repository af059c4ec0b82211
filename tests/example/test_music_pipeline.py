"""The whole pipeline in a queue of its own: real ffmpeg, real HTTP to this machine, real SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs import audio, music
from taskrun import Event, Queue, RunCancelled, RunError, RunFailed
from taskrun.testing import TestQueue
from tests.example.studio import SHIPPED, MakeSong, Services, ffmpeg


@pytest.fixture
async def queue(at_home: None) -> AsyncIterator[Queue]:
    """A queue of the example's jobs, kept in memory."""
    async with Queue(jobs=music, pipes=[music.uploads]) as queue:
        yield queue


async def process(queue: Queue, path: Path | str) -> dict[str, Any]:
    song: dict[str, Any] = await queue.jobs.processFile.run(path=str(path))
    return song


async def attempts(queue: Queue) -> dict[str, int]:
    return {run.job: (await run.info()).attempt async for run in queue.runs()}


def left_over(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "out").glob(".*")]


def library_rows(tmp_path: Path) -> list[tuple[str, ...]]:
    db = sqlite3.connect(tmp_path / "music.db")
    rows = db.execute("select title, artist, source from songs").fetchall()
    db.close()
    return rows


# ---- what comes out


async def test_a_song_with_lookups_is_made_named_and_kept(queue: Queue, services: Services, tmp_path: Path) -> None:
    song = await process(queue, SHIPPED)
    assert (song["title"], song["artist"], song["album"]) == ("Looked Up", "Somebody Known", "The Album")
    assert (song["genre"], song["year"]) == ("dream pop", "1999")
    assert (song["source"], song["notes"], song["path"]) == ("lookup", [], str(SHIPPED))
    assert services.asked("musicbrainz") == [{"fingerprint": song["fingerprint"]}]
    assert services.asked("spotify") == services.asked("lastfm") == services.asked("audiodb") == [{"id": "mb-1"}]
    assert "Audio: vorbis" in ffmpeg("-i", song["ogg"], "-f", "null", "-")
    assert Path(song["cover"]).exists()
    assert len(song["palette"]) == 5
    assert library_rows(tmp_path) == [("Looked Up", "Somebody Known", "lookup")]
    assert left_over(tmp_path) == []


async def test_without_services_the_songs_own_tags_stand(queue: Queue, tmp_path: Path) -> None:
    song = await process(queue, SHIPPED)
    assert (song["title"], song["artist"], song["source"]) == ("First Light", "The Night Shift", "tags")
    assert song["notes"] == ["no lookups: TASKRUN_MUSIC_API is not set"]
    assert library_rows(tmp_path) == [("First Light", "The Night Shift", "tags")]


async def test_the_end_is_said_in_one_friendly_line(queue: Queue) -> None:
    run = await queue.jobs.processFile.start(path=str(SHIPPED))
    await run.result()
    lines = [line.text async for line in run.log() if "♪" in line.text]
    assert lines == ["♪ First Light by The Night Shift, 8 s, is in the library (tags)"]


async def test_transcoding_reports_its_progress(queue: Queue) -> None:
    run = await queue.jobs.transcode.start(path=str(SHIPPED), bitrate=64)
    await run.result()
    progress = (await run.info()).progress
    assert progress is not None
    assert progress["done"] == progress["total"] == pytest.approx(8, abs=0.2)


async def test_doing_a_song_twice_keeps_one_row_and_one_ogg(queue: Queue, tmp_path: Path) -> None:
    first, second = await process(queue, SHIPPED), await process(queue, SHIPPED)
    assert first == second
    assert len(library_rows(tmp_path)) == 1
    assert len(list((tmp_path / "out").glob("*.ogg"))) == 1


async def test_an_upload_is_processed(queue: Queue, tmp_path: Path) -> None:
    done: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
    queue.jobs.processFile.on("success", done.set_result)
    await queue.pipes.uploads.send(path=str(SHIPPED))
    assert (await done).input == {"path": SHIPPED, "bitrate": 128}
    assert len(library_rows(tmp_path)) == 1


# ---- any song of a user


@pytest.mark.parametrize("name", ["two words.mp3", "Ünïcödé 音.flac", "-dash.wav", 'it\'s "q" $HOME.mp3', "a:b.flac"])
async def test_any_name_and_format_works_without_tags_and_cover(queue: Queue, make_song: MakeSong, name: str) -> None:
    path = make_song(name, 1)
    song = await process(queue, path)
    assert (song["title"], song["artist"], song["cover"], song["palette"]) == (path.stem, "", None, [])
    assert Path(song["ogg"]).stat().st_size > 0


async def test_a_relative_path_counts_from_the_current_folder(
    queue: Queue, make_song: MakeSong, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_song("-near by.mp3", 1)
    monkeypatch.chdir(path.parent)
    assert (await process(queue, path.name))["path"] == str(path)


async def test_a_cover_that_nobody_can_read_costs_only_the_palette(
    queue: Queue, make_song: MakeSong, tmp_path: Path
) -> None:
    picture, song = tmp_path / "red.png", tmp_path / "odd cover.flac"
    Image.new("RGB", (64, 64), "red").save(picture)
    sides = ["-map", "0:a", "-map", "1:v", "-c:v", "copy", "-disposition:v", "attached_pic"]
    ffmpeg("-i", str(make_song("bare.flac")), "-i", str(picture), *sides, str(song))
    song.write_bytes(song.read_bytes().replace(b"\x89PNG", b"\x00\x00\x00\x00"))
    output = await process(queue, song)
    assert output["palette"] == []
    assert [note for note in output["notes"] if note.startswith("no palette: ")]


async def test_an_ffmpeg_without_chromaprint_gives_a_hash_and_says_so(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor, real = tmp_path / "ffmpeg", audio.ffmpeg()
    complaint = "Requested output format 'chromaprint' is not known."
    poor.write_text(
        f'#!/bin/sh\ncase "$*" in *chromaprint*) echo "{complaint}" >&2; exit 234;; esac\nexec {real} "$@"\n'
    )
    poor.chmod(poor.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(audio, "ffmpeg", lambda: str(poor))
    song = await process(queue, SHIPPED)
    assert song["fingerprint"].startswith("SHA256=")
    assert "no chromaprint" in song["notes"][0]


# ---- services that fail


async def test_a_service_that_fails_once_is_asked_again(queue: Queue, services: Services) -> None:
    services.failures["lastfm"] = [503, 200]
    song = await process(queue, SHIPPED)
    assert (song["genre"], song["notes"]) == ("dream pop", [])
    assert len(services.asked("lastfm")) == 2


async def test_a_service_that_keeps_failing_is_given_up_and_noted(queue: Queue, services: Services) -> None:
    services.failures["spotify"] = [500]
    song = await process(queue, SHIPPED)
    assert len(services.asked("spotify")) == 3
    assert (song["title"], song["album"], song["source"]) == ("Looked Up", "Small Hours", "lookup")
    assert len(song["notes"]) == 1
    assert song["notes"][0].startswith("spotify: ")


async def test_a_question_that_is_refused_is_not_asked_again(queue: Queue, services: Services) -> None:
    services.failures["musicbrainz"] = [404]
    song = await process(queue, SHIPPED)
    assert len(services.asked("musicbrainz")) == 1
    assert services.asked("spotify") == []
    assert (song["title"], song["source"]) == ("First Light", "tags")
    assert song["notes"] == ["musicBrainz: musicbrainz answered 404 Not Found"]


async def test_a_song_that_nobody_knows_keeps_its_own_tags(queue: Queue, services: Services) -> None:
    services.answers["musicbrainz"] = {}
    song = await process(queue, SHIPPED)
    assert (song["title"], song["source"]) == ("First Light", "tags")
    assert song["notes"] == ["musicBrainz: does not know this song"]


async def test_when_nobody_listens_the_songs_own_tags_stand(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKRUN_MUSIC_API", "http://127.0.0.1:1")
    song = await process(queue, SHIPPED)
    assert (song["title"], song["source"]) == ("First Light", "tags")
    assert len(song["notes"]) == 1
    assert song["notes"][0].startswith("musicBrainz: ")


async def test_musicbrainz_is_asked_once_a_second(at_home: None, services: Services) -> None:
    async with TestQueue(jobs=[music.music_brainz]) as queue:
        runs = [await queue.jobs.musicBrainz.start(fingerprint=str(n)) for n in range(3)]
        for asked, run in enumerate(runs, start=1):
            await run.result()
            assert [question["fingerprint"] for question in services.asked("musicbrainz")] == ["0", "1", "2"][:asked]
            await queue.advance("1s")


# ---- songs that are none


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file or directory"), (b"", "Invalid data found"), (b"no song" * 999, "Invalid data found")],
)
async def test_what_is_no_song_fails_at_once_in_ffmpegs_words(
    queue: Queue, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "not a song.mp3"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunFailed, match=words) as failed:
        await process(queue, path)
    assert str(path) in failed.value.message
    assert failed.value.error_type.endswith("Fatal")
    assert set((await attempts(queue)).values()) == {1}
    assert not (tmp_path / "music.db").exists()
    async for child in queue.runs():  # the other child is cancelled with its parent, and tidies up
        with contextlib.suppress(RunError):
            await child.result()
    assert left_over(tmp_path) == []


async def test_a_cancelled_transcode_leaves_nothing(queue: Queue, make_song: MakeSong, tmp_path: Path) -> None:
    run = await queue.jobs.transcode.start(path=str(make_song("long.wav", 900)))
    while not list((tmp_path / "out").glob(".*.part")):
        await asyncio.sleep(0.01)
    await run.cancel()
    with pytest.raises(RunCancelled):
        await run.result()
    assert list((tmp_path / "out").iterdir()) == []
