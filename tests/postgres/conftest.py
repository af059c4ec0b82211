"""A server that tests may kill, and a project whose journal is a database of its own on it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.faults.conftest import TOML, Project
from tests.faults.conftest import bare as bare
from tests.faults.conftest import runtime as runtime
from tests.postgres.engines import Engines
from tests.postgres_server import Server

JOBS = """
import asyncio, os
from taskrun import Concurrency, job, run, sleep

def trace(what):
    fd = os.open(os.environ["TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{what} {os.getpid()}\\n".encode())
    os.close(fd)

async def work(what, seconds=0.0):
    await asyncio.sleep(seconds)
    trace(what)
    return what

@job
async def hello(name: str = "you") -> str:
    await run("greet", work, f"hello-{name}")
    return f"hello {name}"

@job(retry=0)
async def steps(name: str, count: int = 5, pause: float = 0.05) -> str:
    for number in range(count):
        await run("step", work, f"{name}-{number}", pause)
        await sleep(0.01)
    return name

@job
async def other() -> str:
    return "other"

@job
async def nap(seconds: float = 30.0) -> str:
    return await run("nap", work, "nap", seconds)

@job
async def parent(count: int = 3) -> list[str]:
    return list(await asyncio.gather(*(hello.run(name=f"child{n}") for n in range(count))))
"""


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server of this session's own, which runs at the beginning and end of each test."""
    made = Server()
    made.start()
    yield made
    made.remove()


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """The DSN of a new database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    _execute(server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield f"postgresql://postgres@/{name}?host={server.folder}"
    _execute(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def engines(database: str, tmp_path: Path) -> Iterator[Engines]:
    """Engines on that database, none of which is started yet."""
    made = Engines(database, tmp_path / "trace")
    yield made
    made.end()


def _execute(server: Server, statement: sql.Composed) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def project(bare: Project, database: str) -> Project:
    """A project whose journal is there."""
    bare.write("taskrun.toml", TOML)
    bare.jobs(JOBS)
    bare.env["TASKRUN_JOURNAL"] = database
    return bare
