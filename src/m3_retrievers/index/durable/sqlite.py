"""One connection to an SQLite file: opened when it is needed, never carried over a fork.

The file is in WAL mode with full synchronous writes: a commit that returned survives the
process and the machine, readers see the last commit and never wait for a writer. What SQLite
reports is raised as an error of this package.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from m3_retrievers.errors import (
    IndexCorruptError,
    IndexLockedError,
    IndexUnavailableError,
    M3Error,
    SavedIndexError,
)
from m3_retrievers.index.snapshot.files import sync

_HEADER = b"SQLite format 3\0"
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_REFUSED = {
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk reports an error, or is full",
    sqlite3.SQLITE_NOLFS: "the file system takes no file of that size",
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_AUTH: "permission denied",
    sqlite3.SQLITE_READONLY: "it is read-only",
}
# 2,000 documents with 64 vectors of 384, a changed document: 94 KiB in the log with pages of
# 4 KiB, 205 with 16 and 389 with 32; reading 200 documents' vectors takes the same time.
_PAGE_BYTES = 4_096
# What a checkpoint leaves of the write-ahead log.
_LOG_BYTES = 64 << 20


class Database:
    """Transactions on one SQLite file. The owner keeps threads apart."""

    def __init__(self, path: Path, *, application: int, timeout: float) -> None:
        """path: absolute. application: the id of files of this kind. timeout: seconds to wait."""
        self.path = path
        self._application = application
        self._timeout = timeout
        self._closed = False
        self._open: sqlite3.Connection | None = None
        self._let_go: weakref.finalize[Any, Any] | None = None

    @property
    def transacting(self) -> bool:
        """Whether a transaction is open."""
        return self._open is not None and self._open.in_transaction

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold one state of the file; what others commit meanwhile is not seen."""
        self.execute("BEGIN")
        try:
            yield
        finally:
            self._end("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Commit what is done inside, whole, or after an error nothing of it."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            if self.transacting:
                self.commit()
        finally:
            self._end("ROLLBACK")

    def commit(self) -> None:
        """Put what was written since on the disk."""
        self.execute("COMMIT")

    def end(self) -> None:
        """End what this thread is reading, so that it can write."""
        self._end("COMMIT")

    def _end(self, how: str) -> None:
        # of a transaction that failed, nothing may be open; closing would end it as well
        if self.transacting:
            with suppress(M3Error):
                self.execute(how)
        if self.transacting:
            self.disconnect()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of one statement."""
        with self._errors():
            return self._connection().execute(statement, values).fetchall()

    def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each of the rows."""
        with self._errors():
            self._connection().executemany(statement, rows)

    def each(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of one statement, without holding all of them."""
        with self._errors():
            yield from self._connection().execute(statement, values)

    def checkpoint(self) -> None:
        """Move what is in the log into the file, where no other process is reading it."""
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def shrink(self) -> None:
        """Give the file system back what deleted rows took."""
        with self._errors():
            # frees a page a step, and only a script is stepped through to its end
            self._connection().executescript("PRAGMA incremental_vacuum")

    def close(self) -> None:
        """Let go of the file for good."""
        self._closed = True
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connection; the next statement opens another one.

        SQLite's locks belong to a process, so that none of its connections may cross a fork.
        """
        if self._let_go is not None:
            self._let_go()
        self._open = self._let_go = None

    # The connection

    def _connection(self) -> sqlite3.Connection:
        if self._closed:
            raise IndexUnavailableError(
                f"The index in {str(self.path)!r} was closed. Open it again by its path."
            )
        if self._open is None:
            self._open = self._connected()
            self._let_go = weakref.finalize(self, _close, self._open)
        return self._open

    def _connected(self) -> sqlite3.Connection:
        self.check_files()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            _address(self.path),
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        with ExitStack() as failed:
            failed.callback(connection.close)
            self._set_up(connection)
            failed.pop_all()
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # of macOS, where fsync alone keeps less
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application == self._application:
            return
        (things,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if things or application:
            raise SavedIndexError(
                f"{str(self.path)!r} is an SQLite file of another application. Nothing was "
                "changed; choose another path."
            )
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise SavedIndexError(
                f"{str(self.path)!r} expects a file system with locks and shared memory, got one "
                "on which SQLite keeps no write-ahead log. Choose a local disk."
            )

    def check_files(self) -> None:
        """Refuse what is no file of SQLite before SQLite touches it."""
        for beside in ("-wal", "-shm", "-journal"):
            link = self.path.with_name(self.path.name + beside)
            if link.is_symlink():
                raise SavedIndexError(
                    f"{str(link)!r} is a symbolic link, which an index never makes or follows. "
                    "Remove it, or choose another path."
                )
        if self.path.is_dir():
            raise SavedIndexError(
                f"A durable index is a file, got the folder {str(self.path)!r}. Open a snapshot "
                "with load, or choose a path of a file."
            )
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            start = file.read(len(_HEADER))
        if start and start != _HEADER:
            raise SavedIndexError(
                f"{str(self.path)!r} is no durable index, or its first bytes were changed. "
                "Nothing was written; choose another path."
            )

    def sync_folder(self) -> None:
        """Wait until the folder knows the file's name."""
        with self._errors():
            sync(self.path.parent)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except M3Error:
            raise  # one of them is an OSError too
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # the latter where a changed byte is in the text of an error
            raise self._translated(error) from error
        except OSError as error:
            raise SavedIndexError(
                f"The index in {str(self.path)!r} cannot be opened: {error.strerror or error}. "
                "Change the permissions, or choose another path."
            ) from error

    def _translated(self, error: Exception) -> M3Error:
        # the lower byte is the kind, what is above it the detail
        kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        place = repr(str(self.path))
        if kind in _BUSY:
            return IndexLockedError(
                f"Another process is writing the index in {place} and did not finish within "
                f"{self._timeout:g} seconds. Try again, or open it with a longer timeout=."
            )
        if kind in _REFUSED:
            return SavedIndexError(
                f"The index in {place} cannot be used as it is: {_REFUSED[kind]} ({error}). What "
                "was there before is still whole. Free some space, change the permissions, or "
                "choose another path."
            )
        if isinstance(error, sqlite3.DataError) or kind == sqlite3.SQLITE_TOOBIG:
            return SavedIndexError(
                f"A document in {place} is larger than SQLite takes ({error}). Split its text."
            )
        return IndexCorruptError(
            f"{place} was changed or is torn ({error}). Restore it from a backup, or index the "
            "documents again into another file."
        )


def _address(path: Path) -> str:
    """Return the URI of a file, to be read only where nothing else is possible."""
    if not path.exists() or os.access(path, os.W_OK):
        return path.as_uri()
    if hasattr(os, "statvfs") and os.statvfs(path).f_flag & os.ST_RDONLY:
        # nobody can write there, and SQLite cannot make the files by which processes agree
        return f"{path.as_uri()}?mode=ro&immutable=1"
    return f"{path.as_uri()}?mode=ro"


def _close(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):
        connection.close()
