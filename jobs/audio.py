"""What `music.py` asks of ffmpeg: the commands, how far it is, and its own words when it fails.

Nothing here runs a command or knows of taskrun: `music.py` does, through `shell`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import imageio_ffmpeg

PROJECT = Path(__file__).resolve().parent.parent

# A string command, so that making the file and giving it its name are one step: a crash anywhere makes it anew. Names
# come in by the environment and are never parsed. Two channels at 48 kHz suit every bitrate from 48 to 500 kbit/s.
TRANSCODE = (
    '"$FFMPEG" -hide_banner -nostdin -nostats -loglevel error -y -progress "$REPORT" -stats_period 0.2 -i "$SONG"'
    ' -map 0:a:0 -map_metadata 0 -c:a libvorbis -b:a "${BITRATE}k" -ac 2 -ar 48000 -f ogg "$PART"'
    ' && mv -f -- "$PART" "$OGG"'
)

NO_CHROMAPRINT = "'chromaprint' is not"  # "Requested output format 'chromaprint' is not …": a build without it

_TEMPORARY = (
    "No space left on device",
    "Input/output error",
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "Too many open files",
)
_SPEAKER = re.compile(r"^(\[[^\]]* @ 0x[0-9a-f]+\] )+")  # "[in#0 @ 0x55f1…] ": says nothing to a reader


def locate(path: Path) -> Path:
    """Returns the absolute path of a song; a relative one counts from here, or else from the project's folder."""
    here = path.absolute()
    there = PROJECT / path
    return there if not here.exists() and there.exists() else here


def output_folder() -> Path:
    """Returns the folder for what is made of songs: `TASKRUN_MUSIC_OUT`, or `.taskrun/music` in the project."""
    return Path(os.environ.get("TASKRUN_MUSIC_OUT") or PROJECT / ".taskrun" / "music").absolute()


def output_path(song: Path, suffix: str) -> Path:
    """Returns where something made of a song goes: its name, and a mark that keeps equal names apart."""
    mark = hashlib.sha256(os.fsencode(song)).hexdigest()[:8]
    stem = song.stem.encode(errors="replace")[:150].decode(errors="ignore")  # a file name has at most 255 bytes
    return output_folder() / f"{stem}-{mark}{suffix}"


def ffmpeg() -> str:
    """Returns the ffmpeg that the imageio-ffmpeg package brings along."""
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def transcode_names(song: Path, ogg: Path, part: Path, report: Path, bitrate: int) -> dict[str, str]:
    """Returns the environment of `TRANSCODE`."""
    files: Mapping[str, Path] = {"SONG": song, "OGG": ogg, "PART": part, "REPORT": report}
    return {name: str(path) for name, path in files.items()} | {"FFMPEG": ffmpeg(), "BITRATE": str(bitrate)}


def fingerprint_command(song: Path) -> list[str]:
    """Returns the command that prints the acoustic fingerprint of the first two minutes, as AcoustID takes it."""
    return _decode(song, "-f", "chromaprint", "-fp_format", "base64")


def sound_hash_command(song: Path) -> list[str]:
    """Returns the command that prints a hash of the decoded sound, for an ffmpeg without chromaprint."""
    return _decode(song, "-f", "hash", "-hash", "sha256")


def _decode(song: Path, *output: str) -> list[str]:
    quiet = ["-hide_banner", "-nostdin", "-nostats", "-loglevel", "error"]
    return [ffmpeg(), *quiet, "-i", str(song), "-map", "0:a:0", "-t", "120", *output, "-"]


def seconds_done(report: Path) -> float:
    """Returns how much of the song is done, from the end of the file that `ffmpeg -progress` writes."""
    try:
        text = report.read_text(errors="replace")
    except OSError:
        return 0.0
    marks = re.findall(r"^out_time_us=(\d+)$", text, re.MULTILINE)
    return int(marks[-1]) / 1e6 if marks else 0.0


def words(stderr: str) -> str:
    """Returns ffmpeg's own words without the addresses in them: the last few lines, each once."""
    lines = [_SPEAKER.sub("", line).strip() for line in stderr.splitlines()]
    return "; ".join(list(dict.fromkeys(filter(None, lines)))[-4:])


def is_temporary(code: int, stderr: str) -> bool:
    """Tells whether ffmpeg may well do it at the next try: it was killed, or the machine was short of something."""
    killed = code < 0 or 128 < code < 160  # 128 + signal, as the shell has it; ffmpeg's own codes lie above
    return killed or any(word in stderr for word in _TEMPORARY)
