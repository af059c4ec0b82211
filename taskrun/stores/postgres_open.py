"""Opening a journal in Postgres: what must hold before the first transaction, and numbered migrations that one starter runs."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import sql

from taskrun.model.errors import JournalError, JournalNewer, JournalUnavailable
from taskrun.stores.postgres_names import lock_number
from taskrun.stores.postgres_session import connect
from taskrun.stores.queries import migrations

MIGRATIONS: Final = migrations("postgres_migrations")
SCHEMA: Final = "taskrun"
OLDEST: Final = 130000  # of the server: the first with everything that the queries use
Connection = psycopg.Connection[tuple[Any, ...]]


def shown(dsn: str) -> str:
    """Returns a DSN as it may be shown: without its password."""
    try:
        parts = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:
        return "postgresql://…"
    where = "".join(
        (
            f"{parts['user']}@" if parts.get("user") else "",
            str(parts.get("host") or ""),
            f":{parts['port']}" if parts.get("port") else "",
        )
    )
    return f"postgresql://{where}/{parts.get('dbname') or ''}"


def open_journal(dsn: str, schema: str, *, writes: bool = True) -> Connection:
    """Returns a connection to a journal of today's version, made or migrated where needed.

    Parameters:
        writes: whether a server that only reads is refused.

    Raises:
        JournalUnavailable: no server answers.
        JournalNewer, JournalError: nothing was changed.
    """
    connection = reconnect(dsn, schema, writes=writes)
    try:
        _check_server(connection, dsn, schema)
        _check_pooler(connection, dsn, schema)
        _migrate(connection, dsn, schema)
    except psycopg.Error as error:
        connection.close()
        raise JournalError(f"journal {shown(dsn)}: it cannot be opened ({said(error)}). {_RIGHTS}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def reconnect(dsn: str, schema: str, *, writes: bool = True) -> Connection:
    """Returns a connection to a journal that was opened before. Raises JournalUnavailable, JournalError."""
    try:
        connection = connect(dsn, schema)
    except psycopg.OperationalError as error:
        raise JournalUnavailable(f"journal {shown(dsn)}: the server does not answer ({said(error)})") from error
    except psycopg.Error as error:
        raise JournalError(f"journal {shown(dsn)}: {said(error)}") from error
    try:
        if writes:
            _keep_what_is_committed(connection, dsn)
    except psycopg.Error as error:
        connection.close()
        raise JournalUnavailable(f"journal {shown(dsn)}: the server does not answer ({said(error)})") from error
    except BaseException:
        connection.close()
        raise
    return connection


def is_absent(connection: Connection, schema: str) -> bool:
    """Tells whether there is no journal yet."""
    return not _version(connection, schema)


def said(error: psycopg.Error) -> str:
    """Returns what the server said, in one line."""
    return " ".join((error.diag.message_primary or str(error) or type(error).__name__).split())


def _check_server(connection: Connection, dsn: str, schema: str) -> None:
    if connection.info.server_version < OLDEST:
        raise JournalError(f"journal {shown(dsn)}: the server is too old; taskrun needs Postgres 13 or newer")
    [(encoding,)] = connection.execute("SELECT current_setting('server_encoding')").fetchall()
    if encoding != "UTF8":
        raise JournalError(f"journal {shown(dsn)}: the database's encoding is {encoding}; taskrun needs UTF8")


def _keep_what_is_committed(connection: Connection, dsn: str) -> None:
    """Refuses a server that acknowledges what it may lose, or that only reads (a standby, until it is promoted)."""
    if _setting(connection, "transaction_read_only") == "on":
        raise JournalUnavailable(f"journal {shown(dsn)}: the server only reads; it may be a standby")
    if _setting(connection, "synchronous_commit") == "off":
        connection.execute("SELECT set_config('synchronous_commit', 'on', false)")
        if _setting(connection, "synchronous_commit") == "off":
            raise JournalError(
                f"journal {shown(dsn)}: synchronous_commit is off and cannot be set on: "
                "what was acknowledged would be lost when the server dies"
            )


def _check_pooler(connection: Connection, dsn: str, schema: str) -> None:
    """Refuses a pooler that gives each transaction another session: settings, LISTEN and prepared statements need one.

    Behind a pooler the process that the connection was told of is not the one that answers. One that gives whole sessions is
    fine; so another connection is to take the session of this one, if it can be taken.
    """
    [(pid,)] = connection.execute("SELECT pg_backend_pid()").fetchall()
    if pid == connection.info.backend_pid:
        return
    with connect(dsn, schema) as other, other.transaction():
        other.execute("SELECT 1")
        if connection.execute("SELECT pg_backend_pid()").fetchall() != [(pid,)]:
            raise JournalError(
                f"journal {shown(dsn)}: there is a pooler in transaction mode (such as pgbouncer) before the server. "
                "Connect to the server itself, or give the pooler a database with pool_mode = session"
            )


def _setting(connection: Connection, name: str) -> str:
    [(value,)] = connection.execute("SELECT current_setting($1)", (name,)).fetchall()
    return str(value)


def _migrate(connection: Connection, dsn: str, schema: str) -> None:
    """Brings the journal to today's version in one transaction; of several starters one does it."""
    newest = max(MIGRATIONS)
    if (have := _version(connection, schema)) == newest:
        return
    with connection.transaction():
        connection.execute("SET LOCAL lock_timeout = 0")
        connection.execute("SELECT pg_advisory_xact_lock($1::bigint)", (lock_number(schema, "migration"),))
        have = _version(connection, schema)
        if have > newest:
            raise JournalNewer(
                f"journal {shown(dsn)} is of version {have}, this taskrun knows up to {newest}: "
                "upgrade taskrun (`pip install --upgrade taskrun`). Nothing was changed."
            )
        if not have:
            _make_schema(connection, schema)
        for number in sorted(number for number in MIGRATIONS if number > have):
            connection.execute(MIGRATIONS[number], prepare=False)
            connection.execute("INSERT INTO migrations (n) VALUES ($1)", (number,))


def _make_schema(connection: Connection, schema: str) -> None:
    name = sql.Identifier(schema)
    there = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = $1", (schema,)).fetchone()
    if there is None:  # who may not create one can still use one that was made for them
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(name), prepare=False)
    connection.execute(
        "CREATE TABLE migrations (n bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())", prepare=False
    )


def _version(connection: Connection, schema: str) -> int:
    """Returns the number of the newest migration, 0 where there is no journal yet."""
    table = connection.execute(
        "SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'migrations'", (schema,)
    ).fetchone()
    if table is None:
        return 0
    [(newest,)] = connection.execute("SELECT coalesce(max(n), 0) FROM migrations").fetchall()
    return int(newest)


_RIGHTS = "The user needs CREATE on the database, or a schema of that name that the user owns."
