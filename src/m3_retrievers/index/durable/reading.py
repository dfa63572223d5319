"""The documents of a durable index, read from its file in order, and what shows them whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from m3_retrievers.index.arrays import Arrays, chosen
from m3_retrievers.index.checking import check_arrays, record_of
from m3_retrievers.index.durable.file import DurableFile, id_bytes
from m3_retrievers.index.stores.compressed import compression_fault
from m3_retrievers.types.hits import Record
from m3_retrievers.types.packed import offsets_of
from m3_retrievers.types.representations import Output


@dataclass(frozen=True, slots=True)
class Layout:
    """What a durable index keeps of each document, and where its token vectors are wanted.

    terms: of the vocabulary, None without a weighting. on_disk: token vectors come as keys.
    """

    outputs: tuple[Output, ...]
    terms: int | None
    colbert_dtype: str
    on_disk: bool


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Live documents that lie together: records, arrays for ``Stores.extend``, digests."""

    records: list[Record]
    arrays: Arrays
    digests: list[bytes]


def pieces(file: DurableFile, layout: Layout, *, after: int) -> Iterator[Piece]:
    """Yield the live documents of rows above ``after``, in order.

    Raises IndexCorruptError for what was changed, and for documents without representations.
    """
    documents = _documents(file, after=after)
    waiting = next(documents, None)
    for last, arrays in batches(file, after=after):
        _check_batch(file, layout, arrays, last)
        rows: list[int] = []
        piece = Piece([], {}, [])
        while waiting is not None and waiting[0] <= last:
            rows.append(waiting[0])
            piece.records.append(waiting[1])
            piece.digests.append(waiting[2])
            waiting = next(documents, None)
        if rows:
            places = np.searchsorted(arrays["rows"], np.array(rows, np.int64))
            if not np.array_equal(arrays["rows"][places], rows):
                raise file.corrupt("a document has no representations")
            live = arrays if len(rows) == len(arrays["rows"]) else chosen(arrays, places)
            yield Piece(piece.records, _with_vectors(file, layout, live), piece.digests)
    if waiting is not None:
        raise file.corrupt("a document has no representations")


def batches(file: DurableFile, *, after: int) -> Iterator[tuple[int, Arrays]]:
    """Yield the batches that end with a row above ``after``: that row, and the arrays."""
    rows = file.database.each(
        "SELECT last, arrays, digest FROM batch WHERE last > ? ORDER BY last", [after]
    )
    for last, content, seal in rows:
        try:
            yield last, load(file.checked("batch", last, content, seal))
        except SafetensorError as error:
            raise file.corrupt(str(error)) from error


def _with_vectors(file: DurableFile, layout: Layout, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Return a batch's arrays as ``Stores.extend`` takes them: with vectors, or their keys."""
    kept = dict(arrays)
    rows = kept.pop("rows")
    if "colbert" not in layout.outputs:
        return kept
    if layout.on_disk:
        return {**kept, "colbert.keys": rows}
    width, lengths = int(kept.pop("colbert.width")[0]), kept.pop("colbert.lengths")
    contents = file.vectors(rows, lengths * width * np.dtype(layout.colbert_dtype).itemsize)
    vectors = np.frombuffer(b"".join(contents), layout.colbert_dtype)
    kept["colbert.vectors"] = vectors.reshape(int(lengths.sum()), width)
    if fault := compression_fault(kept["colbert.vectors"], layout.colbert_dtype):
        raise file.corrupt(f"token vectors cannot be read: {fault}")
    kept["colbert.offsets"] = offsets_of(lengths)
    return kept


def _documents(file: DurableFile, *, after: int) -> Iterator[tuple[int, Record, bytes]]:
    rows = file.database.each(
        "SELECT row, id, record, digest FROM document WHERE row > ? ORDER BY row", [after]
    )
    for row, id, content, seal in rows:
        try:
            record = record_of(file.checked("document", row, content, seal))
        except ValueError as error:
            raise file.corrupt(str(error)) from error
        if id_bytes(record.id) != id:
            raise file.corrupt(f"the document {record.id!r:.60} is kept under another id")
        yield row, record, seal


def _check_batch(file: DurableFile, layout: Layout, arrays: Arrays, last: int) -> None:
    rows = arrays.get("rows", np.zeros(0))
    if rows.dtype != np.int64 or rows.ndim != 1 or not len(rows) or rows[-1] != last:
        raise file.corrupt("a batch does not say which rows it holds")
    if rows[0] < 0 or np.any(np.diff(rows) <= 0):
        raise file.corrupt("the rows of a batch do not ascend")
    try:
        check_arrays(
            arrays,
            rows=len(rows),
            outputs=layout.outputs,
            terms=layout.terms,
            colbert_dtype=layout.colbert_dtype,
        )
    except ValueError as error:
        raise file.corrupt(str(error)) from error
