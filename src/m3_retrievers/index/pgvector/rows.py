"""Records and representations as rows of the table, in PostgreSQL's binary formats, and back.

pgvector's types are written as its ``*_recv`` functions read them: a vector is its length and
big-endian floats, a sparse vector its width, its count, columns from 0 and floats.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format
from scipy import sparse as sp

from m3_retrievers.errors import InputError
from m3_retrievers.index.pgvector.values import (
    TokenDtype,
    comparable,
    folded,
    json_written,
    key_of,
    written,
)
from m3_retrievers.types.hits import Record
from m3_retrievers.types.packed import Floats, MultiVectors
from m3_retrievers.types.representations import Output, Representations

# pgvector's own limits
_MOST_DIMENSIONS = 16_000
_MOST_TERMS = 16_000
_FLOAT4, _FLOAT4S = 700, 1021  # PostgreSQL's numbers for real and real[], the same everywhere


@dataclass(frozen=True, slots=True, eq=False)
class Reals:
    """Numbers (n,) on their way to the server as one real[]."""

    values: Floats


class RealsDumper(Dumper):
    """Writes ``Reals`` in binary: a list of floats would be written number by number."""

    format = Format.BINARY
    oid = _FLOAT4S

    def dump(self, obj: Reals) -> Buffer:
        items = np.empty(len(obj.values), [("length", ">i4"), ("value", ">f4")])
        items["length"], items["value"] = 4, obj.values
        dimensions = struct.pack(">ii", len(items), 1) if len(items) else b""
        head = struct.pack(">iii", 1 if len(items) else 0, 0, _FLOAT4)
        return head + dimensions + items.tobytes()


# Into the table


def check_sizes(representations: Representations, outputs: Sequence[Output]) -> None:
    """Raise InputError for what pgvector's types do not hold."""
    for name in outputs:
        value = representations.require(name)
        if name == "sparse":
            terms = int(np.diff(value.indptr).max(initial=0))
            if terms > _MOST_TERMS:
                raise InputError(
                    f"pgvector expects at most {_MOST_TERMS:,} terms a document, got {terms:,}. "
                    "Cut the text into passages."
                )
            continue
        width = value.dimension if name == "colbert" else value.shape[1]
        if not 1 <= width <= _MOST_DIMENSIONS:
            raise InputError(
                f"pgvector expects 1 to {_MOST_DIMENSIONS:,} dimensions, got {width} in {name}."
            )


def rows_of(
    records: Sequence[Record],
    representations: Representations,
    *,
    outputs: Sequence[Output],
    colbert_dtype: TokenDtype,
    token_type: int,
) -> Iterator[tuple[str | bytes | None, ...]]:
    """Yield the columns of each record: key, id, text, metadata three times, representations.

    token_type: the database's number for the type of one token vector. Raises InputError as
    ``check_sizes`` does, before the first row.
    """
    check_sizes(representations, outputs)
    columns: list[Iterator[bytes]] = []
    if "dense" in outputs:
        columns.append(_dense(representations.require("dense")))
    if "sparse" in outputs:
        columns.append(_sparse(representations.require("sparse")))
    if "colbert" in outputs:
        kept = representations.require("colbert")
        columns.append(_colbert(kept, colbert_dtype, token_type))
    for record, *vectors in zip(records, *columns, strict=True):
        lowered = folded(record.metadata)
        yield (
            key_of(record.id),
            written(record.id),
            written(record.text),
            _jsonb(record.metadata),
            json_written(record.metadata),
            None if lowered is None else _jsonb(lowered),
            *vectors,
        )


def _jsonb(value: Any) -> bytes:
    return b"\x01" + json.dumps(comparable(value), ensure_ascii=False).encode()


def _dense(rows: Floats) -> Iterator[bytes]:
    head = struct.pack(">HH", rows.shape[1], 0)
    return (head + row.tobytes() for row in rows.astype(">f4"))


def _sparse(rows: sp.csr_array) -> Iterator[bytes]:
    # in columns' order, without the zeros that the type refuses
    matrix = sp.csr_array(rows.astype(np.float32), copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    indices, data = matrix.indices.astype(">i4"), matrix.data.astype(">f4")
    for first, last in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        head = struct.pack(">iii", matrix.shape[1], last - first, 0)
        yield head + indices[first:last].tobytes() + data[first:last].tobytes()


def _colbert(rows: MultiVectors, dtype: TokenDtype, token_type: int) -> Iterator[bytes]:
    items = np.empty(len(rows.vectors), _items(dtype, rows.dimension))
    items["length"] = items.dtype.itemsize - 4
    items["width"], items["unused"], items["vector"] = rows.dimension, 0, rows.vectors
    for first, last in zip(rows.offsets[:-1], rows.offsets[1:], strict=True):
        head = struct.pack(">iii", 1 if last > first else 0, 0, token_type)
        dimensions = struct.pack(">ii", last - first, 1) if last > first else b""
        yield head + dimensions + items[first:last].tobytes()


def _items(dtype: TokenDtype, width: int) -> np.dtype[Any]:
    """Return the layout of one vector in a binary array: its bytes, its length, its values."""
    real = ">f2" if dtype == "float16" else ">f4"
    return np.dtype(
        [("length", ">i4"), ("width", ">u2"), ("unused", ">u2"), ("vector", real, (width,))]
    )


# Out of it


def dense_of(rows: Sequence[bytes], width: int) -> NDArray[np.float32]:
    """Return (n, h) vectors as ``vector_send`` gives them."""
    values = np.frombuffer(b"".join(row[4:] for row in rows), ">f4")
    return values.astype(np.float32).reshape(len(rows), width)


def sparse_of(rows: Sequence[bytes], width: int) -> sp.csr_array:
    """Return CSR (n, v) of weights as ``sparsevec_send`` gives them."""
    counts = [struct.unpack_from(">i", row, 4)[0] for row in rows]
    indices = [
        np.frombuffer(row, ">i4", count, 12) for row, count in zip(rows, counts, strict=True)
    ]
    data = [
        np.frombuffer(row, ">f4", count, 12 + 4 * count)
        for row, count in zip(rows, counts, strict=True)
    ]
    parts = (
        np.concatenate([*data, np.empty(0, ">f4")]).astype(np.float32),
        np.concatenate([*indices, np.empty(0, ">i4")]).astype(np.int32),
        np.concatenate([[0], np.cumsum(counts, dtype=np.int32)]).astype(np.int32),
    )
    return sp.csr_array(parts, shape=(len(rows), width))


def colbert_of(rows: Sequence[bytes], width: int, dtype: TokenDtype) -> MultiVectors:
    """Return token vectors as ``array_send`` gives them, in the dtype they are kept in."""
    layout = _items(dtype, width)
    found = [
        np.frombuffer(row, layout, offset=20)["vector"] if len(row) > 12 else np.empty((0, width))
        for row in rows
    ]
    return MultiVectors.from_rows([part.astype(dtype) for part in found], dimension=width)
