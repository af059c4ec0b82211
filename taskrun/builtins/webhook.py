"""Posts JSON to a webhook: one request over asyncio, so that a cancel ends it at once and nothing heavy is imported.

Any answer but 2xx is a failure, a redirect too: what was posted would not be posted again.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from taskrun import __version__
from taskrun.model.notify_config import without_path

LONGEST_LINE = 65_536
MOST_HEADERS = 100
ENV = "env:"


class NotDelivered(Exception):
    """A notification did not get where it should."""


async def post(address: str, body: bytes, signature: str | None) -> str:
    """Posts a body; returns the status line of the answer.

    Raises:
        NotDelivered: nobody answered, or the answer is not 2xx.
    """
    shown = without_path(address)
    try:
        status = await _answer_to(address, body, signature)
    except (OSError, EOFError, ValueError) as error:
        raise NotDelivered(f"{shown}: {getattr(error, 'strerror', None) or error or 'no answer'}") from None
    if not status.startswith("2"):
        raise NotDelivered(f"{shown} answered {status}")
    return status


def signed(body: bytes, secret: str, environ: Mapping[str, str]) -> str:
    """Returns the signature of a body.

    Parameters:
        secret: text, or `env:NAME`: the value of a variable.

    Raises:
        NotDelivered: there is no such variable.
    """
    if secret.startswith(ENV):
        name = secret.removeprefix(ENV)
        if not environ.get(name):
            raise NotDelivered(f"the variable {name} of secret is not set where the daemon runs")
        secret = environ[name]
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


async def _answer_to(address: str, body: bytes, signature: str | None) -> str:
    parts = urlsplit(address)
    secure = parts.scheme == "https" or None
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure, limit=LONGEST_LINE)
    try:
        writer.write(_request(address, body, signature))
        await writer.drain()
        return await _status(reader)
    finally:
        writer.transport.abort()


def _request(address: str, body: bytes, signature: str | None) -> bytes:
    parts = urlsplit(address)
    headers = {
        "Host": parts.netloc.rpartition("@")[2],
        "User-Agent": f"taskrun/{__version__}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    if signature is not None:
        headers["X-Taskrun-Signature"] = signature
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


async def _status(reader: asyncio.StreamReader) -> str:
    """Returns code and reason of the answer, after those that only announce it (1xx)."""
    while True:
        version, _, status = (await reader.readline()).decode("latin-1").strip().partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdigit():
            raise EOFError("the answer is not HTTP" if version else "the connection was closed without an answer")
        if not status.startswith("1"):
            return status
        for _ in range(MOST_HEADERS):
            if not (await reader.readline()).strip():
                break
