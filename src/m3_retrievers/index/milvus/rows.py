"""A record as a row of Milvus, and back.

A row's key is a digest of the id: Milvus limits keys, and compares them byte by byte in
expressions, where no text of a user may stand.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers.errors import InputError
from m3_retrievers.index.milvus.facts import facts_of, orders_of
from m3_retrievers.types.hits import Record

# What a VARCHAR and a JSON field of a server take, in bytes.
MOST_BYTES = 65_535
# No vocabulary reaches this column. Milvus takes no row without entries, and no query asks for it.
_STAND_IN = 2**32 - 2
# A text that protobuf cannot carry (it holds half of a surrogate pair) is kept in base64.
_ENCODED = "\x1abase64:"
_TO_FIND_BY = {"id": "its id", "facts": "metadata's values", "orders": "metadata's values"}
_SURROGATE = re.compile("[\ud800-\udfff]")


def key_of(id: str) -> str:
    """Return the key of an id: 40 hexadecimal digits, equally distributed."""
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def row_of(record: Record, place: int) -> tuple[dict[str, Any], bytes]:
    """Return a record's row, without its representations, and what of it has to lie beside.

    Text and metadata that are too long for a field lie beside, and ``long`` says in how many
    bytes. Raises InputError for an id, or for values to filter by, that are too long.
    """
    row: dict[str, Any] = {
        "key": key_of(record.id),
        "place": place,
        "id": _kept(record.id),
        "text": _kept(record.text),
        # as text, for Milvus's JSON has no integers beyond 64 bits
        "metadata": json.dumps(record.metadata),
        "facts": facts_of(record.metadata),
        "orders": orders_of(record.metadata),
    }
    for name, what in _TO_FIND_BY.items():
        size = _size(row[name])
        if size > MOST_BYTES:
            raise InputError(
                f"Milvus finds a document by at most {MOST_BYTES:,} bytes of {what}, got {size:,} "
                f"for document {record.id!r:.60}. Keep less of it with the document."
            )
    beside = b""
    if max(_size(row["text"]), _size(row["metadata"])) > MOST_BYTES:
        beside = json.dumps([row["text"], row["metadata"]]).encode()
        row |= {"text": "", "metadata": ""}
    return {**row, "long": len(beside)}, beside


def record_of(row: Mapping[str, Any]) -> Record:
    """Return the record of a row that was read."""
    text, _ = _long(row)
    return Record(given(row["id"]), given(text), metadata_of(row))


def metadata_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a row that was read."""
    _, written = _long(row)
    metadata: dict[str, Any] = json.loads(written)
    return metadata


def _long(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return a row's text and metadata as they were written, wherever they lie."""
    if not row["long"]:
        return row.get("text", ""), row["metadata"]
    text, metadata = json.loads(row["blob"][: row["long"]])
    return text, metadata


def _size(value: Any) -> int:
    return len((value if isinstance(value, str) else json.dumps(value)).encode())


def sparse_rows(matrix: sp.csr_array) -> list[dict[int, float]]:
    """Return ``{column: weight}`` a row, none of them empty."""
    ends = matrix.indptr[1:-1]
    columns, weights = np.split(matrix.indices, ends), np.split(matrix.data, ends)
    return [
        dict(zip(ids.tolist(), values.tolist(), strict=True)) or {_STAND_IN: 1.0}
        for ids, values in zip(columns, weights, strict=True)
    ]


def sparse_matrix(rows: Sequence[Mapping[int, float]], width: int) -> sp.csr_array:
    """Return CSR (n, v) of rows that were read, columns ascending."""
    kept = [sorted((int(c), w) for c, w in row.items() if int(c) != _STAND_IN) for row in rows]
    ends = np.cumsum([0, *map(len, kept)])
    columns = np.array([column for row in kept for column, _ in row], np.int32)
    weights = np.array([weight for row in kept for _, weight in row], np.float32)
    return sp.csr_array((weights, columns, ends), shape=(len(rows), width))


def dense_matrix(rows: Sequence[Sequence[float]], width: int) -> NDArray[np.float32]:
    """Return (n, h) float32 of rows that were read."""
    return np.asarray(rows, np.float32).reshape(len(rows), width)


def _kept(text: str) -> str:
    if not text.startswith(_ENCODED) and _SURROGATE.search(text) is None:
        return text
    return _ENCODED + base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def given(text: str) -> str:
    """Return a text as it was given."""
    if not text.startswith(_ENCODED):
        return text
    return base64.b64decode(text[len(_ENCODED) :]).decode("utf-8", "surrogatepass")
