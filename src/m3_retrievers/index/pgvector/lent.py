"""The caller's connection and transaction: never committed, never left failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from psycopg import sql
from psycopg.errors import InFailedSqlTransaction
from psycopg.pq import TransactionStatus

from m3_retrievers.errors import IndexUnavailableError, InputError
from m3_retrievers.index.locking import ForkSafeLock
from m3_retrievers.index.pgvector.failures import translated
from m3_retrievers.index.pgvector.session import Connection, Row, Statement, execute, place_of


class Lent:
    """The caller's connection and transaction; an error is undone up to where a call began."""

    timeout: float | None = None
    commits = False

    def __init__(self, connection: Connection) -> None:
        if connection.closed:
            raise IndexUnavailableError(
                "PgVectorIndex expects an open connection, got one that is closed."
            )
        self._connection = connection
        self._lock = ForkSafeLock()
        self._closed = False
        info = connection.info
        self.place = place_of(info.dsn)
        if info.encoding != "utf-8":
            raise InputError(
                f"PgVectorIndex expects a connection with the client encoding UTF8, got "
                f"{info.encoding!r}. Connect with client_encoding='utf-8'."
            )

    def fetch(self, query: Statement, params: Mapping[str, Any]) -> list[Row]:
        with self.transaction() as connection:
            return execute(connection, query, params)

    @contextmanager
    def transaction(self, *, snapshot: bool = False) -> Iterator[Connection]:  # noqa: ARG002
        with self._lock, translated(self.place, None):
            if self._closed or self._connection.closed:
                raise IndexUnavailableError(
                    f"The index in {self.place!r} was closed, or the connection it works on. Make "
                    "a new PgVectorIndex on one that is open."
                )
            connection = self._connection
            status = connection.info.transaction_status
            if status == TransactionStatus.INERROR:
                raise InFailedSqlTransaction
            if status == TransactionStatus.IDLE and not connection.autocommit:
                # begins their transaction, which the block below would begin and commit
                execute(connection, sql.SQL("SELECT"))
            with connection.transaction():
                yield connection

    def close(self) -> None:
        """Use it no more; closing and committing it is the caller's."""
        self._closed = True
