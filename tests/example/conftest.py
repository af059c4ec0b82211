"""Fixtures of the example's tests: songs made by ffmpeg, and the services as a server on this machine."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)  # for `jobs`, as the engine itself has it

from tests.example.studio import MakeSong, Services, ffmpeg  # noqa: E402


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what the example makes in the test's own folder, and nobody to ask."""
    monkeypatch.setenv("TASKRUN_MUSIC_DB", str(tmp_path / "music.db"))
    monkeypatch.setenv("TASKRUN_MUSIC_OUT", str(tmp_path / "out"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("TASKRUN_MUSIC_API", raising=False)


@pytest.fixture
def make_song(tmp_path: Path) -> MakeSong:
    """Returns a function that makes a short song of a name; the name's ending decides the format."""

    def make(name: str, seconds: float = 4, **tags: str) -> Path:
        song = tmp_path / name
        written = [part for key, value in tags.items() for part in ("-metadata", f"{key}={value}")]
        ffmpeg("-f", "lavfi", "-i", f"sine=440:d={seconds},tremolo", "-bitexact", *written, str(song))
        return song

    return make


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """Serves the music services on this machine and points the example at them."""
    services = Services()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = services.reply(self.path)
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Stays silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("TASKRUN_MUSIC_API", f"http://127.0.0.1:{server.server_port}")
        yield services
        server.shutdown()
        thread.join()
