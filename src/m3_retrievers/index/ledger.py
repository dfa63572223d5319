"""What lies in the file of a durable index: rows in SQLite, each with a digest of its content.

======================  =====================================================================
``state``               how the index was made; counters; whose it is and what goes beside it
``document``            a record a row, numbered in order of insertion
``colbert``             a document's token vectors, under the document's row
``batch``               dense, sparse and term counts of documents stored together, under the
                        last of their rows
``vocabulary``          terms in order of their columns, where there is a weighting
``removal``             ids deleted by one change, for processes that follow
======================  =====================================================================

Deleting removes document and vectors; what a batch holds of it stays until compaction. Digests
are SHA-256 over table, key and content; the token vectors, which every search reads, have a
CRC-32 (a quarter of the time, and sure to notice any change within 32 bits). The counters hold
the sum of all document digests, so that a row that is lost is noticed as well.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from m3_retrievers.errors import IndexCorruptError, SavedIndexError
from m3_retrievers.index.arrays import Arrays, chosen, joined
from m3_retrievers.index.files import as_json, of_json
from m3_retrievers.index.sqlite import Database
from m3_retrievers.types.hits import Record
from m3_retrievers.types.packed import offsets_of

APPLICATION = 0x4D334958  # "M3IX", the application id in the header of the file
FORMAT = "m3-retrievers durable index"
VERSION = 1

_TABLES = """
CREATE TABLE state (key INTEGER PRIMARY KEY, value BLOB NOT NULL, digest BLOB NOT NULL);
CREATE TABLE document (row INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, record BLOB NOT NULL,
    digest BLOB NOT NULL);
CREATE TABLE colbert (row INTEGER PRIMARY KEY, vectors BLOB NOT NULL, digest INTEGER NOT NULL);
CREATE TABLE batch (last INTEGER PRIMARY KEY, arrays BLOB NOT NULL, digest BLOB NOT NULL);
CREATE TABLE vocabulary (first INTEGER PRIMARY KEY, terms BLOB NOT NULL, digest BLOB NOT NULL);
CREATE TABLE removal (change INTEGER PRIMARY KEY, ids BLOB NOT NULL, digest BLOB NOT NULL);
"""
_SETTINGS, _COUNTERS, _NOTE = 1, 2, 3

# Rows stored together at most; a batch of 1,024 with 1,024 dense values is 4 MiB and more.
_BATCH_ROWS = 1_024
# A batch below this many rows is small; so many small ones at the end become one, so that
# documents that come one by one are read back nearly as fast as those that come in batches.
_SMALL_ROWS = 256
_SMALL_BATCHES = 64
# Deletions noted for those who follow; who is further behind loads everything again.
_REMOVALS_KEPT = 1_000

_WHOLE = 1 << 256


@dataclass(frozen=True, slots=True)
class Counters:
    """Where the file stands. Two that are equal belong to the same state of it.

    change: counts changes. epoch: counts compactions. horizon: removals up to this change are
    no longer noted. next: the row of the next document. documents: how many are alive; rows:
    how many rows the batches hold. terms: of the vocabulary. tail: small batches at the end.
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


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Live documents that lie together: records, arrays, and the sum of their digests."""

    records: list[Record]
    arrays: Arrays
    check: int


class Ledger:
    """Reads and writes the rows of one file. The caller opens the transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.dtype = "float16"
        self._seen: tuple[bytes, Counters] | None = None

    # State

    def opened(self, settings: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the settings kept in the file; an empty file takes the ones given.

        Raises SavedIndexError for a newer version, or where there are none to take.
        """
        (made,) = self._database.execute("SELECT count(*) FROM sqlite_master")[0]
        if not made and settings is not None:
            for statement in _TABLES.strip().split(";\n"):
                self._database.execute(statement)
            self._database.execute(f"PRAGMA application_id = {APPLICATION}")
            self._write(_SETTINGS, {"format": FORMAT, "version": VERSION, **settings})
            self._write(_COUNTERS, asdict(Counters()))
            self._write(_NOTE, {})
        kept = self._read(_SETTINGS)
        if not isinstance(kept.get("version"), int) or kept.get("format") != FORMAT:
            raise self.corrupt("its settings are no settings of a durable index")
        if kept["version"] > VERSION:
            raise SavedIndexError(
                f"{self._place} has format version {kept['version']}, this m3-retrievers reads "
                f"versions up to {VERSION}. Upgrade m3-retrievers, or index the documents again."
            )
        return kept

    @property
    def exists(self) -> bool:
        """Whether an index was made in the file."""
        return bool(self._database.execute("SELECT count(*) FROM sqlite_master")[0][0])

    def note(self) -> dict[str, Any]:
        """Return whose index it is and what is kept beside it."""
        return self._read(_NOTE)

    def write_note(self, note: Mapping[str, Any]) -> None:
        self._write(_NOTE, note)

    def counters(self) -> Counters:
        """Return where the file stands."""
        content = self._state(_COUNTERS)
        if self._seen is None or self._seen[0] != content:
            self._seen = content, Counters(**of_json(content))
        return self._seen[1]

    def _state(self, key: int) -> bytes:
        rows = self._database.execute("SELECT value, digest FROM state WHERE key = ?", [key])
        if not rows:
            raise self.corrupt("a row of its state is missing")
        return self._checked("state", key, *rows[0])

    def _read(self, key: int) -> dict[str, Any]:
        value = of_json(self._state(key))
        if not isinstance(value, dict):
            raise self.corrupt("its state is no JSON object")
        return value

    def _write(self, key: int, value: Mapping[str, Any]) -> None:
        content = as_json(dict(value))
        self._database.execute(
            "INSERT OR REPLACE INTO state VALUES (?, ?, ?)",
            [key, content, _digest("state", key, content)],
        )

    # Changes

    def put(
        self,
        at: Counters,
        records: Sequence[Record],
        arrays: Arrays,
        *,
        terms: Sequence[str],
        replaced: Sequence[str],
    ) -> tuple[Counters, NDArray[np.int64]]:
        """Store records in place of those replaced; returns the counters and the new rows."""
        check = at.check - self._drop(replaced)
        rows = np.arange(at.next, at.next + len(records), dtype=np.int64)
        contents = [as_json([record.id, record.text, record.metadata]) for record in records]
        digests = [
            _digest("document", row, content)
            for row, content in zip(rows.tolist(), contents, strict=True)
        ]
        self._database.execute_many(
            "INSERT INTO document VALUES (?, ?, ?, ?)",
            zip(rows.tolist(), map(_key, records), contents, digests, strict=True),
        )
        self._put_vectors(rows, arrays)
        if terms:
            self._put_terms(at.terms, terms)
        tail = self._put_batches({"rows": rows, **_batched(arrays)}, tail=at.tail)
        now = replace(
            at,
            change=at.change + 1,
            next=at.next + len(records),
            documents=at.documents + len(records) - len(replaced),
            rows=at.rows + len(records),
            terms=at.terms + len(terms),
            tail=tail,
            check=(check + _sum(digests)) % _WHOLE,
        )
        self._write(_COUNTERS, asdict(now))
        return now, rows

    def remove(self, at: Counters, ids: Sequence[str]) -> Counters:
        """Remove documents that are there; returns the counters."""
        check = (at.check - self._drop(ids)) % _WHOLE
        change = at.change + 1
        content = as_json(list(ids))
        self._database.execute(
            "INSERT INTO removal VALUES (?, ?, ?)",
            [change, content, _digest("removal", change, content)],
        )
        horizon = max(at.horizon, change - _REMOVALS_KEPT)
        self._database.execute("DELETE FROM removal WHERE change <= ?", [horizon])
        now = replace(
            at,
            change=change,
            horizon=horizon,
            documents=at.documents - len(ids),
            check=check,
        )
        self._write(_COUNTERS, asdict(now))
        return now

    def rewrite(self, at: Counters, batches: Iterator[Arrays], *, terms: Sequence[str]) -> Counters:
        """Replace all batches and the vocabulary by those of the live documents."""
        for table in ("batch", "vocabulary", "removal"):
            self._database.execute(f"DELETE FROM {table}")
        tail = 0
        for arrays in batches:
            tail = self._put_batches(arrays, tail=tail)
        if terms:
            self._put_terms(0, terms)
        now = replace(
            at,
            change=at.change + 1,
            epoch=at.epoch + 1,
            horizon=at.change + 1,
            rows=at.documents,
            terms=len(terms),
            tail=tail,
        )
        self._write(_COUNTERS, asdict(now))
        return now

    def live_rows(self) -> NDArray[np.int64]:
        """Return the rows of all documents, ascending."""
        rows = self._database.execute("SELECT row FROM document ORDER BY row")
        return np.array([row for (row,) in rows], np.int64)

    def _drop(self, ids: Sequence[str]) -> int:
        """Remove documents and their vectors; returns the sum of their digests."""
        digests, rows = [], []
        for id in ids:
            found = self._database.execute(
                "SELECT row, digest FROM document WHERE id = ?", [_bytes(id)]
            )
            if len(found) != 1:
                raise self.corrupt(f"the document {id!r:.60} is not found by its id")
            rows.append((found[0][0],))
            digests.append(found[0][1])
        self._database.execute_many("DELETE FROM document WHERE row = ?", rows)
        self._database.execute_many("DELETE FROM colbert WHERE row = ?", rows)
        return _sum(digests)

    def _put_vectors(self, rows: NDArray[np.int64], arrays: Arrays) -> None:
        if "colbert.vectors" not in arrays:
            return
        vectors, offsets = arrays["colbert.vectors"], arrays["colbert.offsets"].tolist()
        contents = (vectors[a:b].tobytes() for a, b in pairwise(offsets))
        self._database.execute_many(
            "INSERT INTO colbert VALUES (?, ?, ?)",
            (
                (row, content, _checksum(row, content))
                for row, content in zip(rows.tolist(), contents, strict=True)
            ),
        )

    def _put_terms(self, first: int, terms: Sequence[str]) -> None:
        content = as_json(list(terms))
        self._database.execute(
            "INSERT INTO vocabulary VALUES (?, ?, ?)",
            [first, content, _digest("vocabulary", first, content)],
        )

    def _put_batches(self, arrays: Arrays, *, tail: int) -> int:
        """Write arrays as batches; returns the number of small ones at the end."""
        count = len(arrays["rows"])
        for first in range(0, count, _BATCH_ROWS):
            rows = np.arange(first, min(count, first + _BATCH_ROWS))
            part = arrays if len(rows) == count else chosen(arrays, rows)
            last, content = int(part["rows"][-1]), save(dict(part))
            self._database.execute(
                "INSERT INTO batch VALUES (?, ?, ?)",
                [last, content, _digest("batch", last, content)],
            )
            tail = tail + 1 if len(rows) < _SMALL_ROWS else 0
        return self._merged(tail) if tail >= _SMALL_BATCHES else tail

    def _merged(self, tail: int) -> int:
        """Join the small batches at the end; returns the number that are left there."""
        ((first,),) = self._database.execute(
            "SELECT min(last) FROM (SELECT last FROM batch ORDER BY last DESC LIMIT ?)", [tail]
        )
        parts = [arrays for _, arrays in self._batches(first - 1)]
        self._database.execute("DELETE FROM batch WHERE last >= ?", [first])
        return self._put_batches(joined(parts), tail=0)

    # Reading

    def pieces(self, after: int, *, vectors: bool) -> Iterator[Piece]:
        """Yield the live documents with rows above ``after``, in order.

        vectors: whether token vectors come along, or only the keys to read them by.
        """
        documents = self._documents(after)
        waiting = next(documents, None)
        for last, arrays in self._batches(after):
            records, rows, digests = [], [], []
            while waiting is not None and waiting[0] <= last:
                rows.append(waiting[0])
                records.append(waiting[1])
                digests.append(waiting[2])
                waiting = next(documents, None)
            places = np.searchsorted(arrays["rows"], np.array(rows, np.int64))
            if not np.array_equal(arrays["rows"][places], rows):
                raise self.corrupt("a document has no representations")
            if records:
                live = chosen(arrays, places)
                yield Piece(records, self._with_vectors(live, vectors=vectors), _sum(digests))
        if waiting is not None:
            raise self.corrupt("a document has no representations")

    def _with_vectors(self, arrays: Arrays, *, vectors: bool) -> dict[str, NDArray[Any]]:
        kept = dict(arrays)
        keys = kept.pop("rows")
        if "colbert.lengths" not in kept:
            return kept
        if not vectors:
            kept["colbert.keys"] = keys
            return kept
        width = int(kept.pop("colbert.width")[0])
        content = b"".join(self.vectors(keys))
        kept["colbert.offsets"] = offsets_of(kept.pop("colbert.lengths"))
        kept["colbert.vectors"] = np.frombuffer(content, self.dtype).reshape(-1, width)
        return kept

    def vectors(self, keys: NDArray[np.int64]) -> list[bytes]:
        """Return the token vectors of documents, as bytes, by their rows."""
        contents = []
        for key in keys.tolist():
            found = self._database.execute(
                "SELECT vectors, digest FROM colbert WHERE row = ?", [key]
            )
            if not found or _checksum(key, found[0][0]) != found[0][1]:
                raise self.corrupt("a document's token vectors were changed or are missing")
            contents.append(found[0][0])
        return contents

    def removed(self, after: int) -> list[str]:
        """Return the ids deleted since a change."""
        rows = self._database.execute(
            "SELECT change, ids, digest FROM removal WHERE change > ? ORDER BY change", [after]
        )
        return [
            id for change, *row in rows for id in of_json(self._checked("removal", change, *row))
        ]

    def terms(self, count: int) -> list[str]:
        """Return the vocabulary, in order of the columns."""
        terms: list[str] = []
        for first, *row in self._database.execute("SELECT * FROM vocabulary ORDER BY first"):
            if first != len(terms):
                raise self.corrupt("a part of its vocabulary is missing")
            terms += of_json(self._checked("vocabulary", first, *row))
        if len(terms) != count:
            raise self.corrupt("a part of its vocabulary is missing")
        return terms

    def _documents(self, after: int) -> Iterator[tuple[int, Record, bytes]]:
        rows = self._database.each(
            "SELECT row, id, record, digest FROM document WHERE row > ? ORDER BY row", [after]
        )
        for row, id, content, digest in rows:
            record = Record(*of_json(self._checked("document", row, content, digest)))
            if _bytes(record.id) != id:
                raise self.corrupt(f"the document {record.id!r:.60} is kept under another id")
            yield row, record, digest

    def _batches(self, after: int) -> Iterator[tuple[int, Arrays]]:
        rows = self._database.each(
            "SELECT last, arrays, digest FROM batch WHERE last > ? ORDER BY last", [after]
        )
        for last, content, digest in rows:
            try:
                arrays = load(self._checked("batch", last, content, digest))
            except SafetensorError as error:
                raise self.corrupt(str(error)) from error
            yield last, arrays

    # Damage

    def _checked(self, table: str, key: int, content: Any, digest: Any) -> bytes:
        if not isinstance(content, bytes) or _digest(table, key, content) != digest:
            raise self.corrupt(f"a row of the table {table!r} differs from its SHA-256")
        return content

    def corrupt(self, fault: str) -> IndexCorruptError:
        """Return the error for a file whose content is not what was written."""
        return IndexCorruptError(
            f"{self._place} was changed or is torn: {fault}. Restore it from a backup, or index "
            "the documents again into another file."
        )

    @property
    def _place(self) -> str:
        return repr(str(self._database.path))


def _batched(arrays: Arrays) -> Arrays:
    """Return what a batch keeps: of token vectors their lengths and width."""
    kept = {name: array for name, array in arrays.items() if not name.startswith("colbert.")}
    if "colbert.vectors" in arrays:
        kept["colbert.lengths"] = np.diff(arrays["colbert.offsets"])
        kept["colbert.width"] = np.array([arrays["colbert.vectors"].shape[1]], np.int64)
    return kept


def _bytes(id: str) -> bytes:
    return id.encode("utf-8", "surrogatepass")


def _key(record: Record) -> bytes:
    return _bytes(record.id)


def _digest(table: str, key: int, content: bytes) -> bytes:
    return hashlib.sha256(f"{table} {key} ".encode() + content).digest()


def _checksum(key: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(str(key).encode()))


def _sum(digests: Sequence[bytes]) -> int:
    return sum(int.from_bytes(digest) for digest in digests)
