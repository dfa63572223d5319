"""Changes to the file of a durable index. Each belongs into a transaction of the caller's.

Deleting removes a document and its token vectors at once; what a batch holds of it stays until
compaction writes the batches anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from m3_retrievers.index.arrays import Arrays, chosen, joined
from m3_retrievers.index.durable.file import (
    Counters,
    DurableFile,
    checksum,
    digest,
    digest_sum,
    id_bytes,
)
from m3_retrievers.index.durable.reading import batches
from m3_retrievers.index.durable.vectors import by_key
from m3_retrievers.index.snapshot.files import as_json
from m3_retrievers.types.hits import Record

# Rows in a batch at most: 1,024 with 1,024 dense values each are 4 MiB and their term weights.
BATCH_ROWS = 1_024
# A batch below so many rows is small, and so many small ones at the end become one, so that
# documents that come one by one are read back nearly as fast as those that come together.
_SMALL_ROWS = 256
_SMALL_BATCHES = 64
# Changes whose deletions are noted; who is further behind reads everything again.
_REMOVALS_KEPT = 1_000


def put(
    file: DurableFile,
    at: Counters,
    records: Sequence[Record],
    arrays: Arrays,
    *,
    terms: Sequence[str],
    replaced: Sequence[str],
) -> tuple[Counters, NDArray[np.int64]]:
    """Store records in place of those replaced; returns the counters and the new rows.

    arrays: of ``Stores.incoming``. terms: those that the vocabulary did not know.
    """
    rows = np.arange(at.next, at.next + len(records), dtype=np.int64)
    contents = [as_json([record.id, record.text, record.metadata]) for record in records]
    pairs = zip(rows.tolist(), contents, strict=True)
    digests = [digest("document", row, content) for row, content in pairs]
    check = digest_sum(at.check, plus=digests, minus=_drop(file, replaced))
    ids = [id_bytes(record.id) for record in records]
    file.database.execute_many(
        "INSERT INTO document VALUES (?, ?, ?, ?)",
        zip(rows.tolist(), ids, contents, digests, strict=True),
    )
    if "colbert.vectors" in arrays:
        _put_vectors(file, rows, arrays)
    _put_terms(file, at.terms, terms)
    kept = by_key(arrays, rows)
    kept.pop("colbert.keys", None)  # they are the rows
    tail = _put_batch(file, {"rows": rows, **kept}, tail=at.tail)
    now = replace(
        at,
        change=at.change + 1,
        next=at.next + len(records),
        documents=at.documents + len(records) - len(replaced),
        rows=at.rows + len(records),
        terms=at.terms + len(terms),
        tail=tail,
        check=check,
    )
    file.write_counters(now)
    return now, rows


def remove(file: DurableFile, at: Counters, ids: Sequence[str]) -> Counters:
    """Remove documents that are there; returns the counters."""
    change, content = at.change + 1, as_json(list(ids))
    check = digest_sum(at.check, minus=_drop(file, ids))
    file.database.execute(
        "INSERT INTO removal VALUES (?, ?, ?)",
        [change, content, digest("removal", change, content)],
    )
    horizon = max(at.horizon, change - _REMOVALS_KEPT)
    file.database.execute("DELETE FROM removal WHERE change <= ?", [horizon])
    documents = at.documents - len(ids)
    now = replace(at, change=change, horizon=horizon, documents=documents, check=check)
    file.write_counters(now)
    return now


def rewrite(
    file: DurableFile, at: Counters, parts: Iterable[Arrays], *, terms: Sequence[str]
) -> Counters:
    """Replace all batches and the vocabulary by those of the live documents.

    parts: arrays of at most BATCH_ROWS rows each, in order, with their ``rows``.
    """
    for table in ("batch", "vocabulary", "removal"):
        file.database.execute(f"DELETE FROM {table}")
    tail = 0
    for arrays in parts:
        tail = _put_batch(file, arrays, tail=tail)
    _put_terms(file, 0, terms)
    now = replace(
        at,
        change=at.change + 1,
        epoch=at.epoch + 1,
        horizon=at.change + 1,
        rows=at.documents,
        terms=len(terms),
        tail=tail,
    )
    file.write_counters(now)
    return now


def live_rows(file: DurableFile) -> NDArray[np.int64]:
    """Return the rows of all documents, ascending."""
    rows = file.database.execute("SELECT row FROM document ORDER BY row")
    return np.array([row for (row,) in rows], np.int64)


def _drop(file: DurableFile, ids: Sequence[str]) -> list[bytes]:
    """Remove documents and their token vectors; returns the documents' digests."""
    digests, rows = [], []
    for id in ids:
        key = id_bytes(id)
        found = file.database.execute("SELECT row, id, digest FROM document WHERE id = ?", [key])
        if len(found) != 1 or found[0][1] != key:
            raise file.corrupt(f"the document {id!r:.60} is not found by its id")
        rows.append((found[0][0],))
        digests.append(found[0][2])
    for table in ("document", "colbert"):
        file.database.execute_many(f"DELETE FROM {table} WHERE row = ?", rows)
    return digests


def _put_vectors(file: DurableFile, rows: NDArray[np.int64], arrays: Arrays) -> None:
    vectors, offsets = arrays["colbert.vectors"], arrays["colbert.offsets"].tolist()
    contents = (vectors[first:last].tobytes() for first, last in pairwise(offsets))
    file.database.execute_many(
        "INSERT INTO colbert VALUES (?, ?, ?)",
        (
            (row, content, checksum(row, content))
            for row, content in zip(rows.tolist(), contents, strict=True)
        ),
    )


def _put_terms(file: DurableFile, first: int, terms: Sequence[str]) -> None:
    if terms:
        content = as_json(list(terms))
        file.database.execute(
            "INSERT INTO vocabulary VALUES (?, ?, ?)",
            [first, content, digest("vocabulary", first, content)],
        )


def _put_batch(file: DurableFile, arrays: Arrays, *, tail: int) -> int:
    """Write arrays as one batch or several; returns the number of small ones at the end."""
    count = len(arrays["rows"])
    for first in range(0, count, BATCH_ROWS):
        places = np.arange(first, min(count, first + BATCH_ROWS))
        part = arrays if len(places) == count else chosen(arrays, places)
        last, content = int(part["rows"][-1]), save(dict(part))
        file.database.execute(
            "INSERT INTO batch VALUES (?, ?, ?)", [last, content, digest("batch", last, content)]
        )
        tail = tail + 1 if len(places) < _SMALL_ROWS else 0
    return tail if tail < _SMALL_BATCHES else _joined_tail(file, tail)


def _joined_tail(file: DurableFile, tail: int) -> int:
    """Join the small batches at the end; returns the number that are left there."""
    ((first,),) = file.database.execute(
        "SELECT min(last) FROM (SELECT last FROM batch ORDER BY last DESC LIMIT ?)", [tail]
    )
    whole = joined([arrays for _, arrays in batches(file, after=first - 1)])
    file.database.execute("DELETE FROM batch WHERE last >= ?", [first])
    return _put_batch(file, whole, tail=0)
