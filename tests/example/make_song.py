"""Makes the song that the example ships, `jobs/songs/first-light.mp3`: a melody, a cover and tags, all from this file.

python tests/example/make_song.py
"""

from __future__ import annotations

import math
import struct
import subprocess
import tempfile
import wave
from pathlib import Path

import imageio_ffmpeg
from PIL import Image, ImageDraw

SONG = Path(__file__).resolve().parents[2] / "jobs" / "songs" / "first-light.mp3"
RATE = 22050
BEAT = 0.5
MELODY = [(0, 69), (1, 72), (2, 76), (3, 74), (4, 72), (5, 76), (6, 81), (8, 79), (9, 76), (10, 74), (11, 72), (12, 69)]
CHORDS = [(0, (45, 57, 60, 64)), (4, (41, 53, 57, 60)), (8, (48, 52, 55, 60)), (12, (45, 52, 57, 64))]
TAGS = {"title": "First Light", "artist": "The Night Shift", "album": "Small Hours", "genre": "Ambient", "date": "2025"}


def tone(pitch: int, seconds: float, loud: float) -> list[float]:
    """Returns a soft struck note of a MIDI pitch that dies away."""
    step = 2 * math.pi * 440 * 2 ** ((pitch - 69) / 12) / RATE
    wave_at = [math.sin(step * i) + 0.3 * math.sin(2 * step * i) for i in range(int(seconds * RATE))]
    return [loud * min(1, i / 400) * math.exp(-1.6 * i / RATE) * value for i, value in enumerate(wave_at)]


def render() -> list[float]:
    """Returns the samples of the whole song, eight seconds."""
    samples = [0.0] * int(16 * BEAT * RATE)
    notes = [(beat, pitch, 0.30) for beat, pitch in MELODY]
    notes += [(beat, pitch, 0.13) for beat, chord in CHORDS for pitch in chord]
    for beat, pitch, loud in notes:
        begin = int(beat * BEAT * RATE)
        for i, value in enumerate(tone(pitch, 2.5, loud)[: len(samples) - begin]):
            samples[begin + i] += value
    return samples


def write_wave(path: Path) -> None:
    """Writes the song as a wave file."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(b"".join(struct.pack("<h", int(28000 * max(-1, min(1, value)))) for value in render()))


def draw_cover(path: Path) -> None:
    """Draws a sun that rises from a dark sea."""
    image = Image.new("RGB", (320, 320), "#1b2a49")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 150, 320, 210), fill="#c8553d")
    draw.ellipse((100, 130, 220, 250), fill="#f2b134")
    draw.rectangle((0, 210, 320, 320), fill="#10182b")
    for y in range(222, 312, 14):
        draw.line((130 - y // 12, y, 190 + y // 12, y), fill="#f2b134", width=3)
    image.save(path, "PNG", optimize=True)


def main() -> None:
    """Writes the mp3 with tags and cover."""
    SONG.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        sound, cover = Path(folder) / "song.wav", Path(folder) / "cover.png"
        write_wave(sound)
        draw_cover(cover)
        tags = [part for name, value in TAGS.items() for part in ("-metadata", f"{name}={value}")]
        quiet = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-y"]
        inputs = ["-i", str(sound), "-i", str(cover), "-map", "0:a", "-map", "1:v"]
        coding = ["-c:a", "libmp3lame", "-b:a", "96k", "-c:v", "copy", "-disposition:v", "attached_pic"]
        subprocess.run([*quiet, *inputs, *coding, *tags, "-id3v2_version", "3", str(SONG)], check=True)
    print(f"{SONG}: {SONG.stat().st_size} bytes")


if __name__ == "__main__":
    main()
