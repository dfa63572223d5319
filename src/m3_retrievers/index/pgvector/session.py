"""Where statements go: to a server over connections of our own, or over the caller's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from m3_retrievers.errors import InputError
from m3_retrievers.index.pgvector.rows import Reals, RealsDumper

Connection: TypeAlias = "psycopg.Connection[Any]"
Cursor: TypeAlias = "psycopg.Cursor[tuple[Any, ...]]"
Row: TypeAlias = tuple[Any, ...]
Statement: TypeAlias = sql.SQL | sql.Composed


class Session(Protocol):
    """Where statements go."""

    place: str
    timeout: float | None
    commits: bool  # whether each call is committed, so that what was read stays

    def fetch(self, query: Statement, params: Mapping[str, Any]) -> list[Row]:
        """Return the rows that one statement, which changes nothing, gives."""
        ...

    def transaction(self, *, snapshot: bool = False) -> AbstractContextManager[Connection]:
        """Give a connection inside a transaction, or inside a part of the caller's.

        What went wrong in it is undone. snapshot: all statements see one state, where the
        transaction is ours.
        """
        ...

    def close(self) -> None: ...


def cursor(connection: Connection) -> Cursor:
    """Return a cursor whose rows are tuples, whatever the caller set on the connection."""
    return psycopg.Cursor(connection, row_factory=tuple_row)


def execute(
    connection: Connection, query: Statement, params: Mapping[str, Any] | None = None
) -> list[Row]:
    """Run one statement; return its rows, [] where it gives none."""
    with cursor(connection) as run:
        if params and any(isinstance(value, Reals) for value in params.values()):
            run.adapters.register_dumper(Reals, RealsDumper)
        # never kept by the server, whose plan would no longer see what is admitted
        run.execute(query, params, prepare=False)
        return [] if run.description is None else run.fetchall()


def place_of(dsn: str) -> str:
    """Return an address as messages show it, without what is secret.

    Raises InputError, which does not quote it, for what is no DSN.

    >>> place_of("postgresql://ada:secret@db.example:5433/books")
    'postgresql://ada@db.example:5433/books'
    """
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise InputError(
            "PgVectorIndex expects a DSN such as 'postgresql://user@host/database', got one that "
            "cannot be read (it is not shown: it may hold a password)."
        ) from None
    user = f"{parts['user']}@" if parts.get("user") else ""
    hosts = str(parts.get("host") or parts.get("hostaddr") or "").split(",")
    ports = str(parts.get("port") or "").split(",")
    port = f":{ports[0]}" if ports[0] else ""
    return f"postgresql://{user}{hosts[0]}{port}/{parts.get('dbname') or ''}"
