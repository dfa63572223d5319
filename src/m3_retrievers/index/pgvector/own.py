"""Connections by a DSN: some are kept, each call is committed, a forked process makes its own."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from weakref import finalize

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from m3_retrievers.errors import IndexUnavailableError
from m3_retrievers.index.locking import ForkSafeLock
from m3_retrievers.index.pgvector.failures import Overdue, Unknown, translated
from m3_retrievers.index.pgvector.session import Connection, Row, Statement, execute, place_of

T = TypeVar("T")

# Connections kept for threads that search at once; one more waits for one to come back.
_AT_ONCE = 8
# The server ends a statement that takes too long; should it be past that, we stop waiting.
_GRACE, _WAKES = 0.5, 0.1

_SET = sql.SQL(
    "SELECT set_config(name, value, false) "
    "FROM unnest({}::text[], {}::text[]) AS settings (name, value)"
).format(sql.Placeholder("names"), sql.Placeholder("values"))
_UNDONE = (TransactionStatus.INTRANS, TransactionStatus.INERROR)


class _Timed(psycopg.Connection[Any]):
    """A connection that waits no longer than ``seconds`` for any answer."""

    seconds: float = math.inf

    def wait(
        self, gen: Generator[Any, Any, Any], interval: float = _WAKES, timeout: float | None = None
    ) -> Any:
        # the first releases of 3.2 have no timeout=
        until = time.monotonic() + min(self.seconds, timeout or math.inf)
        return super().wait(_bounded(gen, until), interval)


def _bounded(gen: Generator[Any, Any, Any], until: float) -> Generator[Any, Any, Any]:
    """Go on with a generator of the client's, which wakes at times, until the time is over."""
    try:
        waits_for = next(gen)
        while True:
            ready = yield waits_for
            waits_for = gen.send(ready)
            if not ready and time.monotonic() > until:
                raise Overdue("the server does not answer")
    except StopIteration as done:
        return done.value


class _Pool:
    """The idle connections of one process, and how many more may be made."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.idle: list[_Timed] = []
        self.free = threading.BoundedSemaphore(_AT_ONCE)

    def close(self) -> None:
        """Close what is idle, in the process whose it is: a fork shares the sockets."""
        if self.pid == os.getpid():
            while self.idle:
                self.idle.pop().close()


# Pools of a parent process: a child neither uses their connections nor lets them be collected,
# which would close the parent's.
_INHERITED: list[_Pool] = []


class Own:
    """Connections by a DSN, safe to share between threads; a forked process makes its own."""

    commits = True

    def __init__(
        self, dsn: str, *, timeout: float, settings: Mapping[str, str] | None = None
    ) -> None:
        self._dsn = dsn
        self.timeout: float | None = timeout
        self.place = place_of(dsn)
        milliseconds = str(max(1, round(timeout * 1000)))
        self._settings = {"statement_timeout": milliseconds, **(settings or {})}
        self._lock = ForkSafeLock()
        self._pool = self._new_pool()
        self._closed = False
        self._local = threading.local()

    def _new_pool(self) -> _Pool:
        pool = _Pool()
        finalize(self, pool.close)
        return pool

    def fetch(self, query: Statement, params: Mapping[str, Any]) -> list[Row]:
        held = getattr(self._local, "connection", None)
        with translated(self.place, self.timeout):
            if held is not None:
                return execute(held, query, params)
            with self._lease() as lease:
                # a read may be tried again on another connection
                return lease.first(lambda connection: execute(connection, query, params))

    @contextmanager
    def transaction(self, *, snapshot: bool = False) -> Iterator[Connection]:
        held = getattr(self._local, "connection", None)
        with translated(self.place, self.timeout):
            if held is not None:
                yield held
                return
            with self._lease() as lease:
                level = " ISOLATION LEVEL REPEATABLE READ" if snapshot else ""
                begin = sql.SQL("BEGIN") + sql.SQL(level)
                # nothing was asked before BEGIN, so that a dead connection may be replaced
                connection = lease.first(lambda one: _begun(one, begin))
                self._local.connection = connection
                try:
                    yield connection
                    _commit(connection)
                finally:
                    del self._local.connection

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._pool.pid == os.getpid():
                self._pool.close()

    @contextmanager
    def _lease(self) -> Iterator[_Lease]:
        pool = self._current()
        if not pool.free.acquire(timeout=self.timeout):
            raise IndexUnavailableError(
                f"The index in {self.place!r} expects at most {_AT_ONCE} calls at once, got more, "
                f"and none ended within {self.timeout:g} s. Search from fewer threads."
            )
        lease = _Lease(self, pool)
        try:
            yield lease
        finally:
            lease.give_back()
            pool.free.release()

    def _current(self) -> _Pool:
        with self._lock:
            if self._closed:
                raise IndexUnavailableError(
                    f"The index in {self.place!r} was closed. Make a new PgVectorIndex."
                )
            if self._pool.pid != os.getpid():
                _INHERITED.append(self._pool)
                self._pool = self._new_pool()
                self._local = threading.local()
            return self._pool

    def connect(self) -> _Timed:
        """Return a new connection; psycopg.OperationalError where none comes in time."""
        connection = _Timed.connect(
            self._dsn,
            autocommit=True,
            # a pooler between us and the server may hand each statement to another session
            prepare_threshold=None,
            connect_timeout=max(2, math.ceil(self.timeout or 0)),
            client_encoding="utf-8",
        )
        connection.seconds = (self.timeout or math.inf) + _GRACE
        try:
            execute(
                connection, _SET, {"names": [*self._settings], "values": [*self._settings.values()]}
            )
        except psycopg.Error:
            connection.close()
            raise
        return connection


class _Lease:
    """One call's connection: one that was idle, or a new one."""

    def __init__(self, own: Own, pool: _Pool) -> None:
        self._own, self._pool = own, pool
        self._connection: _Timed | None = None

    def first(self, call: Callable[[Connection], T]) -> T:
        """Return what the call makes of a connection; a dead idle one is replaced once."""
        with self._own._lock:
            self._connection = self._pool.idle.pop() if self._pool.idle else None
        if self._connection is not None:
            try:
                return call(self._connection)
            except Overdue:
                raise
            except psycopg.OperationalError:
                if not self._connection.broken:
                    raise
                # the server has gone since, and with it the other idle ones
                self._connection.close()
                with self._own._lock:
                    self._pool.close()
        self._connection = self._own.connect()
        return call(self._connection)

    def give_back(self) -> None:
        """Keep the connection for the next call, if it can still be used."""
        connection = self._connection
        if connection is None:
            return
        if connection.info.transaction_status in _UNDONE:
            with suppress(psycopg.Error):
                execute(connection, sql.SQL("ROLLBACK"))
        if connection.info.transaction_status == TransactionStatus.IDLE:
            with self._own._lock:
                if not self._own._closed:
                    self._pool.idle.append(connection)
                    return
        connection.close()


def _begun(connection: Connection, begin: Statement) -> Connection:
    execute(connection, begin)
    return connection


def _commit(connection: Connection) -> None:
    try:
        execute(connection, sql.SQL("COMMIT"))
    except psycopg.OperationalError as error:
        raise Unknown(str(error)) from error
