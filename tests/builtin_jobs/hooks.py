"""A real HTTP server that keeps what is posted to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Post(NamedTuple):
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


class Hooks:
    """What was posted, and how it is answered.

    `answers` are used up one by one, then it is 204; 0 closes the connection, None never answers.
    """

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.answers: list[int | None] = []
        self.over = threading.Event()
        self.address = ""


@contextmanager
def hooks() -> Iterator[Hooks]:
    """A server on a free port."""
    found = Hooks()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.posts.append(Post(self.path, dict(self.headers.items()), body))
            answer = found.answers.pop(0) if found.answers else 204
            if answer is None:
                found.over.wait()
            elif answer:
                self.send_response(answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    found.address = f"http://127.0.0.1:{server.server_port}/hook/secret?token=1"
    try:
        yield found
    finally:
        found.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
