"""The services that know songs: one HTTP call, and how answers and tags become one. Called by `music.py`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import httpx

from jobs.tags import Tags


def base_url() -> str | None:
    """Returns where the services are asked, None where there is nobody to ask."""
    return os.environ.get("TASKRUN_MUSIC_API", "").rstrip("/") or None


async def fetch(service: str, **question: str) -> dict[str, Any]:
    """Asks one service and returns its answer, a JSON object.

    Raises:
        httpx.HTTPError: it cannot be reached, or answers with an error.
        ValueError: its answer is no JSON object.
    """
    async with httpx.AsyncClient(timeout=10, follow_redirects=True) as http:
        response = await http.get(f"{base_url()}/{service}", params=question)
    response.raise_for_status()
    answer = response.json()
    if not isinstance(answer, dict):
        raise ValueError(f"{service} answered {response.text[:80]!r}, not an object")
    return answer


def merge(answers: Iterable[Mapping[str, Any]]) -> Tags:
    """Returns for each field what the first of the answers that knows it says."""
    known = list(answers)
    return Tags(
        title=_first(known, "title"),
        artist=_first(known, "artist"),
        album=_first(known, "album"),
        genre=_first(known, "genre"),
        year=_first(known, "year"),
    )


def _first(answers: list[Mapping[str, Any]], field: str) -> str:
    values = (answer.get(field) for answer in answers)
    return next((str(value) for value in values if value and isinstance(value, (str, int))), "")
