"""Triggers that can never start their job are known without an event, as far as both say how they look."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from msgspec.structs import replace

from taskrun import job, pipe
from taskrun.declarations.files import files
from taskrun.declarations.job import Job
from taskrun.declarations.pipe import Source
from taskrun.declarations.registry import Registry, never_fits


class Upload(TypedDict):
    path: str
    size: int


@job
async def made() -> Upload:
    return {"path": "a", "size": 1}


@job
async def anything() -> Any: ...


inbox, typed, loose = files("inbox/*.mp3"), pipe("typed", input=Upload), pipe("loose")


@job(name="takes")
async def exact(path: str, size: int = 0) -> None: ...


@job(name="takes")
async def path_alone(path: str) -> None: ...


@job(name="takes")
async def needs_more(path: str, size: int, rate: int, **rest: Any) -> None: ...


@job(name="takes")
async def open_to_all(path: str, **rest: Any) -> None: ...


@job(name="takes")
async def model(upload: Upload) -> None: ...


FILE = "it gives path, name, size, modified, change"
CHOOSE = "which takes does not take; choose the fields with .into(…)"


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        (inbox.into(), open_to_all, ""),
        (inbox.into(), path_alone, f"it gives name, size, modified, change, {CHOOSE}"),
        (inbox.into(), exact, f"it gives name, modified, change, {CHOOSE}"),
        (inbox.into(), model, f"it gives name, modified, change, {CHOOSE}"),
        (inbox.into(), needs_more, f"{FILE}, but not rate, which takes requires; give it with .into(…)"),
        (inbox.into(lambda event: {}), needs_more, ""),
        (replace(inbox.into(lambda event: {}), picks=True), exact, ""),
        (
            replace(inbox.into(lambda event: {}), picks=True),
            needs_more,
            f"{FILE}, but not rate, which takes requires; give it a default",
        ),
        (typed.into(), exact, ""),
        (typed.into(), model, ""),
        (typed.into(), path_alone, f"it gives size, {CHOOSE}"),
        (typed.into(), needs_more, "it gives path, size, but not rate, which takes requires; give it with .into(…)"),
        (loose.into(), needs_more, ""),
        (made.into(), exact, ""),
        (made.into(), path_alone, f"it gives size, {CHOOSE}"),
        (anything.into(), path_alone, ""),
    ],
)
def test_what_a_trigger_gives_and_what_a_job_takes(source: Source, target: Job, said: str) -> None:
    assert never_fits(target, source) == said


def test_such_a_trigger_is_told_of_where_the_jobs_are_described() -> None:
    @job(trigger=[inbox, typed.into(lambda event: None)])
    async def convert(path: str) -> None: ...

    (described,) = Registry([convert]).described_jobs()
    (refused,) = described["refused"]
    assert (refused["trigger"], refused["at"], refused["over"]) == ("files:inbox/*.mp3", None, None)
    assert refused["text"].startswith("it gives name, size, modified, change, which convert does not take")
