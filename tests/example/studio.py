"""What the tests of the example work with: the shipped song, ffmpeg, and what the music services say."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import imageio_ffmpeg

SHIPPED = Path(__file__).resolve().parents[2] / "jobs" / "songs" / "first-light.mp3"

MakeSong = Callable[..., Path]


def ffmpeg(*arguments: str) -> str:
    """Runs the real ffmpeg and returns what it prints."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-y", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


class Services:
    """The music services: `answers` and `failures` by path, and all `questions` they were asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "musicbrainz": {"id": "mb-1", "title": "Looked Up", "artist": "Somebody Known"},
            "spotify": {"album": "The Album"},
            "lastfm": {"genre": "dream pop", "title": "Another Name"},
            "audiodb": {"year": 1999},
        }
        self.failures: dict[str, list[int]] = {}  # statuses to answer with first; the last one repeats for ever
        self.questions: list[tuple[str, dict[str, str]]] = []

    def asked(self, service: str) -> list[dict[str, str]]:
        """Returns the questions put to one service."""
        return [question for name, question in self.questions if name == service]

    def reply(self, target: str) -> tuple[int, Any]:
        """Returns status and body for a request."""
        parts = urlsplit(target)
        service = parts.path.strip("/")
        self.questions.append((service, {key: values[0] for key, values in parse_qs(parts.query).items()}))
        statuses = self.failures.get(service, [200])
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        return (status, self.answers[service]) if status == 200 else (status, {"error": "as asked for"})
