"""The parts of the example that know nothing of taskrun, with the real ffmpeg."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from jobs import audio, library, lookups, music, tags
from tests.cli.fakes import FakeDaemon, FakeTerminal, a_run, typed
from tests.example.studio import SHIPPED, MakeSong, Services, ffmpeg


def run(command: list[str] | str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    shell = isinstance(command, str)
    return subprocess.run(command, shell=shell, env={**os.environ, **(env or {})}, capture_output=True, text=True)


# ---- ffmpeg


def test_the_fingerprint_is_acoustic_and_the_same_for_another_encoding_of_the_sound(tmp_path: Path) -> None:
    copy = tmp_path / "copy.flac"
    ffmpeg("-i", str(SHIPPED), "-map", "0:a", str(copy))
    first, second = (run(audio.fingerprint_command(song)).stdout.strip() for song in (SHIPPED, copy))
    assert first == second
    assert re.fullmatch(r"AQ[A-Za-z0-9_-]{20,}", first)


def test_the_stand_in_for_the_fingerprint_is_a_hash_of_the_sound_not_of_the_file(make_song: MakeSong) -> None:
    plain, tagged = make_song("a.flac"), make_song("b.flac", title="Tagged")
    hashes = {run(audio.sound_hash_command(song)).stdout.strip() for song in (plain, tagged)}
    assert len(hashes) == 1
    assert hashes.pop().startswith("SHA256=")


@pytest.mark.parametrize("name", ["plain.mp3", "two words.flac", "-dash.mp3", "Ünïcödé 音.wav", "a$(id) 'q\" %d:b.mp3"])
def test_a_song_of_any_name_becomes_an_ogg(make_song: MakeSong, tmp_path: Path, name: str) -> None:
    song = audio.locate(make_song(name))
    ogg, part, report = tmp_path / "out.ogg", tmp_path / ".part", tmp_path / ".report"
    done = run(audio.TRANSCODE, audio.transcode_names(song, ogg, part, report, bitrate=128))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Audio: vorbis" in ffmpeg("-i", str(ogg), "-f", "null", "-")
    assert not part.exists()
    assert audio.seconds_done(report) == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("bitrate", [48, 500])
def test_the_ends_of_the_bitrate_suit_a_narrow_mono_song(tmp_path: Path, bitrate: int) -> None:
    song, ogg = tmp_path / "phone.wav", tmp_path / "phone.ogg"
    ffmpeg("-f", "lavfi", "-i", "sine=440:d=1:r=8000", "-ac", "1", str(song))
    names = audio.transcode_names(song, ogg, tmp_path / ".part", tmp_path / ".report", bitrate)
    assert run(audio.TRANSCODE, names).returncode == 0
    assert ogg.stat().st_size > 0


def test_a_failed_transcode_leaves_the_old_ogg_alone(tmp_path: Path) -> None:
    song, ogg = tmp_path / "broken.mp3", tmp_path / "out.ogg"
    song.write_bytes(b"no song at all" * 100)
    ogg.write_bytes(b"the old one")
    done = run(audio.TRANSCODE, audio.transcode_names(song, ogg, tmp_path / ".part", tmp_path / ".report", 128))
    assert done.returncode != 0
    assert not audio.is_temporary(done.returncode, done.stderr)
    assert "Invalid data found when processing input" in audio.words(done.stderr)
    assert "0x" not in audio.words(done.stderr)
    assert ogg.read_bytes() == b"the old one"


def test_a_missing_file_is_said_in_ffmpegs_words_and_not_worth_a_retry(tmp_path: Path) -> None:
    done = run(audio.fingerprint_command(tmp_path / "gone.mp3"))
    assert "No such file or directory" in audio.words(done.stderr)
    assert not audio.is_temporary(done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("code", "stderr"),
    [(-9, ""), (137, ""), (228, "av_interleaved_write_frame(): No space left on device"), (251, "Input/output error")],
)
def test_a_killed_ffmpeg_and_a_full_disk_are_worth_a_retry(code: int, stderr: str) -> None:
    assert audio.is_temporary(code, stderr)


def test_words_are_the_last_lines_each_once() -> None:
    stderr = "one\ntwo\n[in#0 @ 0x55f1] three\n[a @ 0x1] [b @ 0x2] four\nthree\nfive\n\n"
    assert audio.words(stderr) == "two; three; four; five"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0.0),
        ("out_time_us=N/A\nprogress=continue\n", 0.0),
        ("out_time_us=500000\nprogress=continue\nout_time_us=2500000\nprogress=end\n", 2.5),
        ("out_time_us=500000\nout_time_us=25", 0.000025),
    ],
)
def test_progress_is_the_last_time_in_the_report(tmp_path: Path, text: str, seconds: float) -> None:
    report = tmp_path / "report"
    report.write_text(text)
    assert audio.seconds_done(report) == seconds


def test_progress_is_nothing_before_there_is_a_report(tmp_path: Path) -> None:
    assert audio.seconds_done(tmp_path / "none") == 0.0


# ---- places


def test_a_relative_path_counts_from_here_and_else_from_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert audio.locate(Path("jobs/songs/first-light.mp3")) == SHIPPED
    assert audio.locate(Path("nowhere.mp3")) == tmp_path / "nowhere.mp3"
    (tmp_path / "README.md").touch()
    assert audio.locate(Path("README.md")) == tmp_path / "README.md"


@pytest.mark.parametrize(
    ("command", "request_", "field"), [("start processFile", "start", "input"), ("send uploads", "send", "data")]
)
async def test_a_path_that_is_typed_counts_from_the_callers_folder(
    tmp_path: Path, command: str, request_: str, field: str
) -> None:
    (tmp_path / "taskrun.toml").touch()
    caller = tmp_path / "songs"
    caller.mkdir()
    described = {"jobs": [music.process_file.describe()], "pipes": [music.uploads.describe()], "problems": []}
    sent = {"id": "e", "started": [], "woke": [], "skipped": [], "refused": {}, "later": []}
    daemon = FakeDaemon(jobs=described, start={"run": a_run(), "created": True}, send=sent)
    assert await typed(f"{command} --path song.mp3", FakeTerminal(caller), daemon) == 0
    assert json.loads(daemon.params(request_)[field]) == {"path": str(caller / "song.mp3")}


def test_equal_names_of_two_folders_get_two_files() -> None:
    assert audio.output_path(Path("/a/x.mp3"), ".ogg") != audio.output_path(Path("/b/x.mp3"), ".ogg")


def test_a_very_long_name_still_fits(tmp_path: Path) -> None:
    path = audio.output_path(Path("/a") / ("音" * 80 + ".mp3"), ".ogg")
    path.parent.mkdir()
    path.touch()
    assert path.name.startswith("音" * 40)


# ---- tags and covers


def test_the_shipped_song_has_tags_a_length_and_a_cover(tmp_path: Path) -> None:
    assert tags.read_tags(SHIPPED) == tags.Tags(
        title="First Light", artist="The Night Shift", album="Small Hours", genre="Ambient", year="2025"
    )
    assert tags.read_duration(SHIPPED) == pytest.approx(8, abs=0.2)
    cover = tags.extract_cover(SHIPPED, tmp_path / "out" / "song.of.mine")
    assert cover == str(tmp_path / "out" / "song.of.mine.png")
    with Image.open(cover) as image:
        assert image.size == (320, 320)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["song.of.mine.png"]
    assert SHIPPED.stat().st_size < 200_000


@pytest.mark.parametrize("ending", ["mp3", "flac", "wav"])
def test_tags_are_read_from_every_format(make_song: MakeSong, ending: str) -> None:
    song = make_song(f"song.{ending}", title="Näme", artist="Who", date="2001")
    if ending == "wav":  # ffmpeg writes tags of another kind into a wav
        tagged = tags.open_tagged(song)
        tagged.add_tags()
        tagged.tags.update_to_v24()
        for frame in tags.open_tagged(make_song("other.mp3", title="Näme", artist="Who", date="2001")).tags.values():
            tagged.tags.add(frame)
        tagged.save()
    assert tags.read_tags(song) == tags.Tags(title="Näme", artist="Who", album="", genre="", year="2001")
    assert tags.read_duration(song) == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("ending", ["mp3", "flac", "wav"])
def test_a_song_without_tags_is_called_as_its_file_and_has_no_cover(
    make_song: MakeSong, tmp_path: Path, ending: str
) -> None:
    song = make_song(f"no tags at all.{ending}")
    assert tags.read_tags(song) == tags.Tags(title="no tags at all", artist="", album="", genre="", year="")
    assert tags.extract_cover(song, tmp_path / "cover") is None


def test_a_flac_shows_its_cover(make_song: MakeSong, tmp_path: Path) -> None:
    song, picture = tmp_path / "with cover.flac", tmp_path / "red.jpg"
    Image.new("RGB", (8, 8), "red").save(picture)
    sides = ["-map", "0:a", "-map", "1:v", "-c:v", "copy", "-disposition:v", "attached_pic"]
    ffmpeg("-i", str(make_song("bare.flac")), "-i", str(picture), *sides, str(song))
    cover = tags.extract_cover(song, tmp_path / "cover")
    assert cover == str(tmp_path / "cover.jpg")
    assert Path(cover).read_bytes() == picture.read_bytes()


def test_what_is_no_song_has_no_tags_and_no_length(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp3"
    broken.write_bytes(b"\x00" * 500)
    for path in (broken, tmp_path / "gone.flac", tmp_path):
        assert tags.read_tags(path)["title"] == path.stem
        assert tags.read_duration(path) is None


def test_the_palette_begins_with_the_colour_there_is_most_of(tmp_path: Path) -> None:
    image = Image.new("RGB", (90, 90), "#204080")
    image.paste("#e0a020", (0, 0, 90, 20))
    image.save(tmp_path / "two.png")
    colours = tags.dominant_colours(str(tmp_path / "two.png"))
    first = [int(colours[0][i : i + 2], 16) for i in (1, 3, 5)]
    assert first == pytest.approx([0x20, 0x40, 0x80], abs=8)
    assert 2 <= len(colours) <= 5
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_a_palette_is_made_of_every_kind_of_image(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("cover.jpg" if mode == "CMYK" else "cover.png")
    Image.new(mode, (5, 5)).save(path)
    assert len(tags.dominant_colours(str(path))) == 1


# ---- services and library


async def test_a_service_is_asked_and_its_answer_comes_back(services: Services) -> None:
    assert await lookups.fetch("musicbrainz", fingerprint="a+b/c d&e") == services.answers["musicbrainz"]
    assert services.questions == [("musicbrainz", {"fingerprint": "a+b/c d&e"})]


@pytest.mark.parametrize("status", [404, 500])
async def test_an_error_status_is_raised(services: Services, status: int) -> None:
    services.failures["spotify"] = [status]
    with pytest.raises(httpx.HTTPStatusError) as raised:
        await lookups.fetch("spotify", id="x")
    assert raised.value.response.status_code == status


async def test_an_answer_that_is_no_object_is_an_error(services: Services) -> None:
    services.answers["lastfm"] = ["what"]
    with pytest.raises(ValueError, match="lastfm answered"):
        await lookups.fetch("lastfm", id="x")


@pytest.mark.parametrize(("value", "base"), [("", None), ("http://x/", "http://x"), ("http://x/v1", "http://x/v1")])
def test_the_services_are_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, value: str, base: str | None
) -> None:
    monkeypatch.setenv("TASKRUN_MUSIC_API", value)
    assert lookups.base_url() == base


def test_merging_takes_the_first_that_knows() -> None:
    own = tags.Tags(title="Own", artist="Own", album="Own", genre="", year="")
    first: dict[str, Any] = {"id": "1", "title": "First", "artist": None, "year": 1999}
    assert lookups.merge([first, {"title": "Second", "genre": ["odd"]}, own]) == tags.Tags(
        title="First", artist="Own", album="Own", genre="", year="1999"
    )


async def test_storing_a_song_twice_keeps_it_once(tmp_path: Path) -> None:
    names = tags.Tags(title="T", artist="A", album="", genre="", year="")
    song = library.Song(
        **names, path="/x.mp3", duration=None, fingerprint="AQ", cover=None, palette=["#fff"], source="tags", notes=[],
        ogg="/x.ogg",
    )  # fmt: skip
    await library.store(song)
    await library.store({**song, "title": "Better"})
    with sqlite3.connect(tmp_path / "music.db") as db:
        rows = db.execute("select path, title, palette from songs").fetchall()
    db.close()
    assert rows == [("/x.mp3", "Better", '["#fff"]')]
