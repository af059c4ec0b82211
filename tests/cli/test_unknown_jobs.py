"""Tables of `taskrun.toml` that name a job which is not there are told of wherever the jobs are looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskrun.cli.backend.unknown_jobs import OWN_NAME, unknown_jobs
from taskrun.rules.schedule_tables import read_config
from tests.cli.fakes import FakeDaemon, FakeTerminal, typed

SCHEDULE = '[[schedule]]\njob = "{}"\ncron = "@daily"\n'
FILES = '[[files]]\njob = "{}"\npattern = "inbox/*"\n'
NOTIFY = '[[notify]]\njobs = ["{}"]\ncommand = "mail me"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SCHEDULE.format("backup") + FILES.format("backup") + NOTIFY.format("back*") + NOTIFY.format("exec"), []),
        (SCHEDULE.format("bakcup"), ['[[schedule]] names "bakcup", but there is no such job (did you mean backup?)']),
        (FILES.format("gone"), ['[[files]] names "gone", but there is no such job']),
        (FILES.format("gone") * 2, ['[[files]] names "gone", but there is no such job']),
        (NOTIFY.format("sync*"), [f'[[notify]] names "sync*", but there is no such job{OWN_NAME}']),
        ("[[notify]]\ndesktop = true\n", []),
    ],
)
def test_each_name_that_no_job_has_is_told_once(tmp_path: Path, text: str, told: list[str]) -> None:
    path = tmp_path / "taskrun.toml"
    path.write_text(text)
    assert unknown_jobs(read_config(path, {}), {"backup"}) == told


async def test_the_list_of_jobs_and_the_doctor_tell_of_them(screen: FakeTerminal) -> None:
    toml = FILES.format("procesFile") + NOTIFY.format("procesFile")
    (screen.facts.cwd / "taskrun.toml").write_text(toml)
    assert await typed("jobs", screen, FakeDaemon()) == 0
    meant = 'names "procesFile", but there is no such job (did you mean processFile?)'
    assert f"warning: [[files]] {meant}\n" in screen.chatter
    assert f"warning: [[notify]] {meant}{OWN_NAME}\n" in screen.chatter
    screen.written = ""
    await typed("doctor", screen, FakeDaemon(runs=[], schedule=[]))
    assert " ".join(screen.written.split()).count(meant) == 2
