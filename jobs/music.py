"""The example: a song comes in, its metadata and an .ogg come out, and the library keeps both.

    taskrun run processFile --path jobs/songs/first-light.mp3

A `Path` that is typed counts from the folder in which it is typed, and the run gets it absolute.

`processFile` runs `metadata` and `transcode` side by side. `metadata` takes the acoustic fingerprint, asks the services
at `TASKRUN_MUSIC_API` who that is, and falls back to the file's own tags. Files go to `TASKRUN_MUSIC_OUT`, by default
`.taskrun/music`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypedDict, cast

import httpx

from jobs import audio, library, lookups, tags
from jobs.library import Metadata, Song
from taskrun import (
    CommandFailed,
    Fatal,
    Job,
    RunFailed,
    Throttle,
    current,
    job,
    log,
    pipe,
    progress,
    run,
    shell,
    step,
    thread,
)


class Upload(TypedDict):
    """A song has arrived."""

    path: Path


class Sound(TypedDict):
    """What `transcode` makes."""

    ogg: str


uploads = pipe("uploads", input=Upload)


# ---- the services


@job(name="musicBrainz", throttle=Throttle("musicbrainz", "1s", mode="queue"), retry=2, backoff="250ms")
async def music_brainz(fingerprint: str) -> dict[str, Any]:
    """Asks MusicBrainz whose sound this is: one question a second, each waiting its turn."""
    return await ask("musicbrainz", fingerprint=fingerprint)


@job(retry=2, backoff="250ms")
async def spotify(id: str) -> dict[str, Any]:
    """Asks Spotify about a song that MusicBrainz knows."""
    return await ask("spotify", id=id)


@job(name="lastFm", retry=2, backoff="250ms")
async def last_fm(id: str) -> dict[str, Any]:
    """Asks Last.fm about a song that MusicBrainz knows."""
    return await ask("lastfm", id=id)


@job(name="audioDB", retry=2, backoff="250ms")
async def audio_db(id: str) -> dict[str, Any]:
    """Asks TheAudioDB about a song that MusicBrainz knows."""
    return await ask("audiodb", id=id)


async def ask(service: str, **question: str) -> dict[str, Any]:
    """Asks a service. A question that it refuses (4xx) is not asked again; one that it fails at (5xx, no answer) is."""
    try:
        return await lookups.fetch(service, **question)
    except httpx.HTTPStatusError as error:
        if error.response.is_client_error:
            raise Fatal(f"{service} answered {error.response.status_code} {error.response.reason_phrase}") from error
        raise


async def answer(service: Job, notes: list[str], **question: str) -> dict[str, Any] | None:
    """Runs a lookup. One that fails for good becomes a note, for a song is a song without it."""
    try:
        found: dict[str, Any] = await service.run(**question)
    except RunFailed as failed:
        notes.append(f"{service.name}: {failed.message}")
        return None
    return found


async def look_up(fingerprint: str, notes: list[str]) -> list[dict[str, Any]]:
    """Returns what the services say, the most trusted first."""
    if lookups.base_url() is None:
        notes.append("no lookups: TASKRUN_MUSIC_API is not set")
        return []
    match = await answer(music_brainz, notes, fingerprint=fingerprint)
    if match is None:
        return []
    if not match.get("id"):
        notes.append("musicBrainz: does not know this song")
        return []
    others = (answer(service, notes, id=str(match["id"])) for service in (spotify, last_fm, audio_db))
    return [match, *filter(None, await asyncio.gather(*others))]


# ---- the song


@job(concurrency=10, retry=2, backoff="1s")
async def metadata(path: Path) -> Metadata:
    """Finds out all there is to know of a song."""
    song, notes = audio.locate(path), list[str]()
    fingerprint = await fpcalc(song, notes)
    own = await run("tags", tags.read_tags, song)
    duration = await run("duration", tags.read_duration, song)
    answers, (cover, palette) = await asyncio.gather(look_up(fingerprint, notes), artwork(song, notes))
    for note in notes:
        log.warning(note)
    return Metadata(
        **lookups.merge([*answers, own]),
        path=str(song),
        duration=duration,
        fingerprint=fingerprint,
        cover=cover,
        palette=palette,
        source="lookup" if answers else "tags",
        notes=notes,
    )


async def fpcalc(song: Path, notes: list[str]) -> str:
    """Takes the acoustic fingerprint, or a plain hash of the sound where this ffmpeg was built without chromaprint."""
    try:
        return await ffmpeg("fpcalc", audio.fingerprint_command(song))
    except Fatal as failed:
        if audio.NO_CHROMAPRINT not in str(failed):
            raise
    notes.append("no acoustic fingerprint: this ffmpeg has no chromaprint, so a hash of the sound stands in")
    return await ffmpeg("sound-hash", audio.sound_hash_command(song))


async def artwork(song: Path, notes: list[str]) -> tuple[str | None, list[str]]:
    """Extracts the cover and its main colours. No song fails for a cover that nobody can read."""
    cover = await run("cover", tags.extract_cover, song, audio.output_path(song, ""))
    if cover is None:
        return None, []
    try:
        return cover, await thread("color-extractor", tags.dominant_colours, cover, retry=0, timeout="30s")
    except Exception as error:
        notes.append(f"no palette: {error}")
        return cover, []


@job(concurrency=2, timeout="5m", retry=2, backoff="1s")
async def transcode(path: Path, bitrate: int = 128) -> Sound:
    """Makes a real .ogg of a song. It appears whole or not at all."""
    song = audio.locate(path)
    ogg = audio.output_path(song, ".ogg")
    part, report = (ogg.with_name(f".{current().run_id}{suffix}") for suffix in (".part", ".progress"))
    ogg.parent.mkdir(parents=True, exist_ok=True)
    total = await run("duration", tags.read_duration, song)
    try:
        async with progress_from(report, total):
            await ffmpeg("ffmpeg", audio.TRANSCODE, audio.transcode_names(song, ogg, part, report, bitrate))
    finally:
        part.unlink(missing_ok=True)
        report.unlink(missing_ok=True)
    return Sound(ogg=str(ogg))


@asynccontextmanager
async def progress_from(report: Path, total: float | None) -> AsyncIterator[None]:
    """Turns the file that ffmpeg reports to into the run's progress for as long as the block lasts."""

    async def follow() -> None:
        while True:
            progress(audio.seconds_done(report), total, "s of sound")
            await asyncio.sleep(0.2)

    follower = asyncio.create_task(follow())
    try:
        yield
        progress(total or audio.seconds_done(report), total, "s of sound")
    finally:
        follower.cancel()


async def ffmpeg(name: str, command: str | list[str], env: dict[str, str] | None = None) -> str:
    """Runs ffmpeg as a step and returns what it prints.

    Raises:
        Fatal: with ffmpeg's own words; trying again would not mend the file.
        CommandFailed: it was killed or the machine was short of something; another attempt may do.
    """
    try:
        done = await shell(command, name=name, env=env)
    except CommandFailed as failed:
        if audio.is_temporary(failed.code, failed.stderr):
            raise
        raise Fatal(f"ffmpeg: {audio.words(failed.stderr)}") from failed
    return done.stdout.strip()


@job(
    name="processFile",
    trigger=[uploads.into(lambda upload: {"path": upload["path"]})],
    retry=3,
    backoff="1s",
    timeout="30m",
)
async def process_file(path: Path, bitrate: int = 128) -> Song:
    """Takes a song into the library: its metadata and its .ogg, made side by side."""
    try:
        known, sound = await asyncio.gather(metadata.run(path=path), transcode.run(path=path, bitrate=bitrate))
    except RunFailed as failed:  # the child has had its own retries
        raise Fatal(failed.message) from failed
    song = cast(Song, known | sound)
    await run("store", library.store, song, concurrency=1)
    await notify(song)
    return song


@step
def notify(song: Song) -> None:
    """Says that a song is there."""
    length = f"{song['duration']:.0f} s" if song["duration"] else "of unknown length"
    print(f"♪ {song['title']} by {song['artist'] or 'nobody known'}, {length}, is in the library ({song['source']})")
