"""The file of a durable index: its tables, how it was made, and what shows that it is whole.

======================  =====================================================================
``state``               how the index was made; counters; whose it is and what goes beside it
``document``            a record a row, numbered in order of insertion
``colbert``             a document's token vectors, under the document's row
``batch``               dense, sparse and term counts of documents stored together, under the
                        last of their rows
``vocabulary``          terms in order of their columns, where there is a weighting
``removal``             ids deleted by one change, for processes that follow
======================  =====================================================================

Each row has a digest: SHA-256 over table, key and content. Token vectors, which every search
reads, have a CRC-32 instead (a quarter of the time, and sure to notice any change within 32
bits). The counters hold the sum of all documents' digests, so that a row lost is noticed too.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import IndexCorruptError, SavedIndexError
from m3_retrievers.index.durable.sqlite import Database
from m3_retrievers.index.snapshot.files import as_json, of_json

APPLICATION = 0x4D334958  # "M3IX", the application id in the header of the file
FORMAT = "m3-retrievers durable index"
VERSION = 1

_TABLES = (
    "state (key INTEGER PRIMARY KEY, value BLOB NOT NULL, digest BLOB NOT NULL)",
    "document (row INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, record BLOB NOT NULL,"
    " digest BLOB NOT NULL)",
    "colbert (row INTEGER PRIMARY KEY, vectors BLOB NOT NULL, digest INTEGER NOT NULL)",
    "batch (last INTEGER PRIMARY KEY, arrays BLOB NOT NULL, digest BLOB NOT NULL)",
    "vocabulary (first INTEGER PRIMARY KEY, terms BLOB NOT NULL, digest BLOB NOT NULL)",
    "removal (change INTEGER PRIMARY KEY, ids BLOB NOT NULL, digest BLOB NOT NULL)",
)
_SETTINGS, _COUNTERS, _NOTE = 1, 2, 3
_SUMS = 1 << 256


@dataclass(frozen=True, slots=True)
class Counters:
    """Where a file stands; two that are equal belong to the same state of it.

    change: counts changes. epoch: counts compactions. horizon: removals up to this change are
    no longer noted. next: the row of the next document. documents: how many are alive. rows:
    how many the batches hold. terms: of the vocabulary. tail: small batches at the end.
    check: the sum of the documents' digests.
    """

    change: int = 0
    epoch: int = 0
    horizon: int = 0
    next: int = 0
    documents: int = 0
    rows: int = 0
    terms: int = 0
    tail: int = 0
    check: int = 0


class DurableFile:
    """Reads the rows of one file and checks them. The caller opens the transactions."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._counters: tuple[bytes, Counters] | None = None

    # How it was made, and where it stands

    @property
    def made(self) -> bool:
        """Whether an index was made in it."""
        return bool(self.database.execute("SELECT count(*) FROM sqlite_master")[0][0])

    def make(self, settings: Mapping[str, Any]) -> None:
        """Make an empty index; settings: JSON, kept for good."""
        for table in _TABLES:
            self.database.execute(f"CREATE TABLE {table}")
        self.database.execute(f"PRAGMA application_id = {APPLICATION}")
        self._write(_SETTINGS, {"format": FORMAT, "version": VERSION, **settings})
        self.write_counters(Counters())
        self.write_note({})

    def settings(self) -> dict[str, Any]:
        """Return the settings; SavedIndexError for a file of a newer version."""
        kept = self._read(_SETTINGS)
        version = kept.get("version")
        if kept.get("format") != FORMAT or not isinstance(version, int):
            raise self.corrupt("its settings are none of a durable index")
        if version > VERSION:
            raise SavedIndexError(
                f"{self.place} has format version {version}, this m3-retrievers reads versions "
                f"up to {VERSION}. Upgrade m3-retrievers, or index the documents again."
            )
        return kept

    def counters(self) -> Counters:
        """Return where the file stands."""
        content = self._state(_COUNTERS)
        if self._counters is None or self._counters[0] != content:
            self._counters = content, self._as_counters(content)
        return self._counters[1]

    def _as_counters(self, content: bytes) -> Counters:
        values = self.value(content, dict)
        whole = all(isinstance(value, int) and value >= 0 for value in values.values())
        if not whole or set(values) != {field.name for field in fields(Counters)}:
            raise self.corrupt("its counters are no counters")
        return Counters(**values)

    def write_counters(self, counters: Counters) -> None:
        """Note where the file stands from now on."""
        self._write(_COUNTERS, asdict(counters))

    def note(self) -> dict[str, Any]:
        """Return whose index it is and what is kept beside it."""
        return self._read(_NOTE)

    def write_note(self, note: Mapping[str, Any]) -> None:
        """Keep whose index it is and what goes beside it."""
        self._write(_NOTE, note)

    def _state(self, key: int) -> bytes:
        rows = self.database.execute("SELECT value, digest FROM state WHERE key = ?", [key])
        if not rows:
            raise self.corrupt("a row of its state is missing")
        return self.checked("state", key, *rows[0])

    def _read(self, key: int) -> dict[str, Any]:
        value: dict[str, Any] = self.value(self._state(key), dict)
        return value

    def _write(self, key: int, value: Mapping[str, Any]) -> None:
        content = as_json(dict(value))
        self.database.execute(
            "INSERT OR REPLACE INTO state VALUES (?, ?, ?)",
            [key, content, digest("state", key, content)],
        )

    # What is read in passing

    def vectors(self, rows: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[bytes]:
        """Return the token vectors of documents by their rows, of so many bytes each."""
        contents = []
        for row, size in zip(rows.tolist(), sizes.tolist(), strict=True):
            found = self.database.execute(
                "SELECT vectors, digest FROM colbert WHERE row = ?", [row]
            )
            if not found or not self._is_whole(row, *found[0], size=size):
                raise self.corrupt("a document's token vectors are missing or were changed")
            contents.append(found[0][0])
        return contents

    @staticmethod
    def _is_whole(row: int, content: Any, seal: Any, *, size: int) -> bool:
        right = isinstance(content, bytes) and len(content) == size
        return right and checksum(row, content) == seal

    def removed(self, since: int) -> list[str]:
        """Return the ids that changes after ``since`` deleted."""
        rows = self.database.execute(
            "SELECT change, ids, digest FROM removal WHERE change > ? ORDER BY change", [since]
        )
        return [id for row in rows for id in self.value(self.checked("removal", *row), list)]

    def vocabulary(self, count: int) -> list[str]:
        """Return the terms, ``count`` in all, in order of their columns."""
        terms: list[str] = []
        rows = self.database.execute("SELECT first, terms, digest FROM vocabulary ORDER BY first")
        for first, content, seal in rows:
            if first != len(terms):
                break
            terms += self.value(self.checked("vocabulary", first, content, seal), list)
        if len(terms) != count or len(set(terms)) != count:
            raise self.corrupt("its vocabulary is not whole")
        return terms

    # Damage

    def checked(self, table: str, key: int, content: Any, seal: Any) -> bytes:
        """Return the content of a row; IndexCorruptError where it differs from its digest."""
        if not isinstance(content, bytes) or digest(table, key, content) != seal:
            raise self.corrupt(f"a row of its table {table!r} differs from its SHA-256")
        return content

    def value(self, content: bytes, kind: type) -> Any:
        """Return content as JSON of one kind; IndexCorruptError for anything else."""
        try:
            value = of_json(content)
        except ValueError as error:
            raise self.corrupt(str(error)) from error
        if not isinstance(value, kind):
            raise self.corrupt(f"it expects a JSON {kind.__name__}, got {type(value).__name__}")
        return value

    def corrupt(self, fault: str) -> IndexCorruptError:
        """Return the error for a file whose content is not what was written."""
        return IndexCorruptError(
            f"{self.place} was changed or is torn: {fault}. Restore it from a backup, or index "
            "the documents again into another file."
        )

    @property
    def place(self) -> str:
        """The path, as messages show it."""
        return repr(str(self.database.path))


def id_bytes(id: str) -> bytes:
    """Return an id as it is kept, lone surrogates included."""
    return id.encode("utf-8", "surrogatepass")


def digest(table: str, key: int, content: bytes) -> bytes:
    """Return the SHA-256 of a row's content, with the place it belongs to."""
    return hashlib.sha256(f"{table} {key} ".encode() + content).digest()


def checksum(row: int, content: bytes) -> int:
    """Return the CRC-32 of a document's token vectors, with the row they belong to."""
    return zlib.crc32(content, zlib.crc32(str(row).encode()))


def digest_sum(start: int, *, plus: Sequence[bytes] = (), minus: Sequence[bytes] = ()) -> int:
    """Return a sum of digests after some came and others went."""
    gained, lost = (sum(map(int.from_bytes, digests)) for digests in (plus, minus))
    return (start + gained - lost) % _SUMS
