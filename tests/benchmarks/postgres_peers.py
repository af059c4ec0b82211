"""Peers of taskrun on Postgres, for `bench_postgres.py --peers`: each in a new database, with one process that works.

    python tests/benchmarks/postgres_peers.py PEER enqueue|work jobs|steps|sequential COUNT DSN

Their packages (`pip install absurd-sdk absurdctl dbos procrastinate`) are needed for nothing else. Of each the concurrency and
the API are taken with which it is fastest.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

STEPS = {"steps": 10, "sequential": 1_000}


class Peer(NamedTuple):
    """Another task queue on Postgres.

    Parameters:
        package: what has to be installed.
        kinds: what it can do of `jobs`, `steps` and `sequential`.
        enqueue: triggers so many, one call each; returns the seconds of that.
        work: executes them, until it is killed.
        finished: the query that counts those that are done.
        span: the query for the seconds from the first start to the last end.
    """

    package: str
    kinds: tuple[str, ...]
    enqueue: Callable[[str, str, int], float]
    work: Callable[[str, str, int], None]
    finished: str
    span: str


def _each(count: int, call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - began


# ---- absurd


def _absurd_enqueue(dsn: str, kind: str, count: int) -> float:
    control = Path(sys.executable).with_name("absurdctl")
    subprocess.run([control, "init", "-d", dsn], check=True, stdout=subprocess.DEVNULL)
    client = import_module("absurd_sdk").Absurd(dsn, queue_name="q")
    client.create_queue()
    client.register_task("task")(lambda params, context: None)
    return _each(count, lambda: client.spawn("task", {"steps": STEPS.get(kind, 0)}))


def _absurd_work(dsn: str, kind: str, count: int) -> None:
    sdk = import_module("absurd_sdk")
    if kind == "sequential":  # faster without an event loop, where there is one at a time
        client = sdk.Absurd(dsn, queue_name="q")

        @client.register_task("task")  # type: ignore[untyped-decorator, unused-ignore]
        def task(params: Any, context: Any) -> None:
            for number in range(params["steps"]):
                context.step(f"s{number}", lambda: None)

        client.start_worker(concurrency=1)
        return
    worker = sdk.AsyncAbsurd(dsn, queue_name="q")

    async def nothing() -> None: ...

    @worker.register_task("task")  # type: ignore[untyped-decorator, unused-ignore]
    async def async_task(params: Any, context: Any) -> None:
        for number in range(params["steps"]):
            await context.step(f"s{number}", nothing)

    asyncio.run(worker.start_worker(concurrency=10 if kind == "jobs" else 50))


# ---- DBOS


def _dbos(dsn: str) -> Any:
    module = import_module("dbos")

    @module.DBOS.workflow(name="noop")  # type: ignore[untyped-decorator, unused-ignore]
    def noop() -> None: ...

    @module.DBOS.step(name="step")  # type: ignore[untyped-decorator, unused-ignore]
    def step() -> None: ...

    @module.DBOS.workflow(name="steps")  # type: ignore[untyped-decorator, unused-ignore]
    def steps(count: int) -> None:
        for _ in range(count):
            step()

    config = {"name": "peers", "system_database_url": dsn, "log_level": "ERROR", "application_version": "1"}
    module.DBOS(config=config)
    return module.DBOS, noop, steps


def _dbos_enqueue(dsn: str, kind: str, count: int) -> float:
    if kind != "jobs":
        return 0.0  # the process that works starts them, which is faster
    dbos, noop, _ = _dbos(dsn)
    dbos.listen_queues([])
    dbos.launch()
    dbos.register_queue("q")
    return _each(count, lambda: dbos.enqueue_workflow("q", noop))


def _dbos_work(dsn: str, kind: str, count: int) -> None:
    dbos, _, steps = _dbos(dsn)
    dbos.launch()
    if kind == "sequential":
        steps(STEPS[kind])
    elif kind == "steps":
        for handle in [dbos.start_workflow(steps, STEPS[kind]) for _ in range(count)]:
            handle.get_result()
    time.sleep(3_600)


# ---- procrastinate


def _procrastinate(dsn: str, connector: str) -> tuple[Any, Any]:
    module = import_module("procrastinate")
    app = module.App(connector=getattr(module, connector)(conninfo=dsn))

    @app.task(name="noop")  # type: ignore[untyped-decorator, unused-ignore]
    async def noop() -> None: ...

    return app, noop


def _procrastinate_enqueue(dsn: str, kind: str, count: int) -> float:
    app, noop = _procrastinate(dsn, "SyncPsycopgConnector")
    app.open()
    app.schema_manager.apply_schema()
    return _each(count, noop.defer)


def _procrastinate_work(dsn: str, kind: str, count: int) -> None:
    app, _ = _procrastinate(dsn, "PsycopgConnector")

    async def work() -> None:
        async with app.open_async():
            await app.run_worker_async(concurrency=10)

    asyncio.run(work())


PEERS = {
    "absurd": Peer(
        "absurd_sdk",
        ("jobs", "steps", "sequential"),
        _absurd_enqueue,
        _absurd_work,
        "SELECT count(*) FROM absurd.t_q WHERE state = 'completed'",
        "SELECT extract(epoch FROM max(completed_at) - min(started_at)) FROM absurd.r_q",
    ),
    "dbos": Peer(
        "dbos",
        ("jobs", "steps", "sequential"),
        _dbos_enqueue,
        _dbos_work,
        "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'",
        "SELECT (max(updated_at) - min(coalesce(started_at_epoch_ms, created_at))) / 1e3 FROM dbos.workflow_status",
    ),
    "procrastinate": Peer(
        "procrastinate",
        ("jobs",),
        _procrastinate_enqueue,
        _procrastinate_work,
        "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
        "SELECT extract(epoch FROM max(at) - min(at)) FROM procrastinate_events WHERE type IN ('started', 'succeeded')",
    ),
}


def measure(name: str, kind: str, count: int, dsn: str) -> tuple[float, float] | None:
    """Returns the seconds of enqueuing and of executing, in a new database; None where the peer cannot, or is not installed."""
    peer = PEERS[name]
    if kind not in peer.kinds or find_spec(peer.package) is None:
        return None
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS peer WITH (FORCE)")
        connection.execute("CREATE DATABASE peer")
        connection.execute("CHECKPOINT")
    own = psycopg.conninfo.conninfo_to_dict(dsn)
    address = f"postgresql://{own['user']}@/peer?host={own['host']}"
    command = [sys.executable, __file__, name]
    rest = [kind, str(count), address]
    enqueue = float(subprocess.run([*command, "enqueue", *rest], stdout=subprocess.PIPE, text=True, check=True).stdout)
    with subprocess.Popen([*command, "work", *rest], stdout=subprocess.DEVNULL) as worker:
        try:
            with psycopg.connect(address, autocommit=True) as connection:
                while _value(connection, peer.finished) < count:
                    assert worker.poll() is None, f"the worker of {name} has ended"
                    time.sleep(0.05)
                return enqueue, _value(connection, peer.span)
        finally:
            worker.kill()


def _value(connection: psycopg.Connection[Any], query: str) -> float:
    try:
        [(value,)] = connection.execute(query.encode()).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):  # it is made by the worker
        return 0.0
    return float(value)


if __name__ == "__main__":
    _, _name, _what, _kind, _count, _dsn = sys.argv
    if _what == "work":
        PEERS[_name].work(_dsn, _kind, int(_count))
    else:
        print(PEERS[_name].enqueue(_dsn, _kind, int(_count)), flush=True)
