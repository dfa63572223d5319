"""What PostgreSQL and its client say went wrong, in this package's tree of errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg

from m3_retrievers.errors import (
    DuplicateIdError,
    IndexLockedError,
    IndexUnavailableError,
    InputError,
    M3Error,
    SavedIndexError,
)

# Another transaction was in the way; the change was undone whole, and may be tried again.
_CONFLICTS = (pg.DeadlockDetected, pg.SerializationFailure, pg.LockNotAvailable)


class Overdue(psycopg.OperationalError):
    """The server has not answered within the time allowed; the connection is given up."""


class Unknown(psycopg.OperationalError):
    """The server was lost while it committed."""


@contextmanager
def translated(place: str, timeout: float | None) -> Iterator[None]:
    """Raise what the client raises as an error of this package.

    place: the address in messages. timeout: the seconds an answer may take.
    """
    try:
        yield
    except psycopg.Error as error:
        raise failure(error, place, timeout) from error


def failure(error: psycopg.Error, place: str, timeout: float | None) -> M3Error:
    """Return the error of this package that stands for one of the client's."""
    at = f"The index in {place!r}"
    said = _said(error)
    if isinstance(error, pg.UniqueViolation):
        return DuplicateIdError(
            "add expects new ids, got one that another writer has added meanwhile. Use upsert to "
            "replace it, or another id."
        )
    if isinstance(error, _CONFLICTS):
        return IndexLockedError(
            f"{at} expects its writers to take turns, got {said}. Nothing was changed: try again."
        )
    if isinstance(error, Unknown):
        return IndexUnavailableError(
            f"{at} expects a change to be confirmed, got {said}. Whether it was stored is "
            "not known: look (get, where) before you repeat it."
        )
    if isinstance(error, Overdue | pg.QueryCanceled):
        allowed = "" if timeout is None else f" within {timeout:g} s"
        return IndexUnavailableError(
            f"{at} expects an answer{allowed}, got none ({said}). Give a longer timeout=, narrow "
            "the search, or look at what keeps the server busy."
        )
    if isinstance(error, pg.InsufficientPrivilege):
        return IndexUnavailableError(
            f"{at} expects a user who may use it, got {said}. Its owner grants SELECT to read, and "
            "INSERT, UPDATE and DELETE to write, on the table and on its note; a new table needs "
            "CREATE on the schema."
        )
    if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn | pg.UndefinedObject):
        return SavedIndexError(
            f"{at} is not what it was, got {said}. It was dropped or changed, or the transaction "
            "that made it was rolled back: make a new PgVectorIndex."
        )
    if isinstance(error, pg.InFailedSqlTransaction):
        return IndexUnavailableError(
            f"{at} expects a transaction that goes on, got one in which an earlier statement of "
            "yours failed. Roll it back first."
        )
    if isinstance(error, psycopg.DataError):
        return InputError(
            f"{at} refused a value, got {said}. Encode with the model and settings it was built "
            "with, and keep within what pgvector holds."
        )
    return IndexUnavailableError(
        f"{at} expects a server that answers, got {said}. Check that it runs, that the address is "
        "right and that the user may connect."
    )


def _said(error: psycopg.Error) -> str:
    """Return the message alone: DETAIL quotes what was stored."""
    said = error.diag.message_primary or str(error) or type(error).__name__
    return " ".join(said.split()).removesuffix(".")
