"""A record as a point: a UUID made of its id, and a payload that gives it back to the letter.

Payload of a point: ``id``, ``text``; ``metadata``, as JSON text, because an engine would round
its large integers and may drop the difference between 1 and 1.0; ``n``, the insertion number,
which orders and breaks ties; ``call``, which call wrote it; ``facts``, ``numbers`` and
``strings``, which filters read (see ``filters``). Text that UTF-8 cannot carry (lone surrogates)
is in ``exact``.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any
from uuid import UUID

import numpy as np
from scipy import sparse as sp

from m3_retrievers.index.qdrant.filters import facts, is_unicode, numbers, strings
from m3_retrievers.index.qdrant.requests import Found, Terms, Vector
from m3_retrievers.types.hits import Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.representations import Output, Representations

_NAMESPACE = UUID("5c1d6e0e-8f0b-5f0e-9d1a-6d3372657472")


def point_id(id: str) -> str:
    """Return the UUID (version 5) that stands for an id, whatever characters it has.

    >>> point_id("a") == point_id("a"), point_id("a") == point_id("b")
    (True, False)
    """
    name = id.encode("utf-8", "surrogatepass")
    digest = hashlib.sha1(_NAMESPACE.bytes + name, usedforsecurity=False).digest()
    return str(UUID(bytes=digest[:16], version=5))


class InsertionNumbers:
    """Ascending numbers: microseconds since 1970, or one more than the last where that is higher.

    Writers that know nothing of each other are so in the order of their clocks. They stay below
    2^53, up to which an engine's float64 compares integers exactly.
    """

    def __init__(self) -> None:
        self._lock, self._next = Lock(), 0

    def take(self, count: int, *, after: int = 0) -> range:
        """Return ``count`` numbers in a row, above ``after`` and all that were taken."""
        with self._lock:
            first = max(self._next, after + 1, time.time_ns() // 1000)
            self._next = first + count
        return range(first, self._next)


def payload_of(record: Record, *, number: int, call: str, bare: bool) -> dict[str, Any]:
    """Return a record's payload; bare: its only token vector stands for none at all."""
    payload: dict[str, Any] = {
        "id": record.id,
        "text": record.text,
        "metadata": _packed(record.metadata),
        "n": number,
        "call": call,
        "facts": facts(record.metadata),
        "numbers": numbers(record.metadata),
        "strings": strings(record.metadata),
    }
    if not (is_unicode(record.id) and is_unicode(record.text)):
        payload["exact"] = _packed([record.id, record.text])
        payload["id"], payload["text"] = _replaced(record.id), _replaced(record.text)
    return payload | {"bare": True} if bare else payload


RECORD_FIELDS = ("id", "text", "metadata", "exact", "n")
ID_FIELDS = ("id", "exact", "n")


def record_of(payload: Mapping[str, Any]) -> Record:
    """Return the record of a payload that has ``RECORD_FIELDS``."""
    id, text = _id_and_text(payload)
    return Record(id, text, metadata_of(payload))


def metadata_of(payload: Mapping[str, Any]) -> Any:
    """Return the record's metadata, of a payload that has ``metadata``."""
    return _unpacked(payload["metadata"])


def id_of(payload: Mapping[str, Any]) -> str:
    """Return the record's id, of a payload that has ``ID_FIELDS``."""
    return _id_and_text(payload)[0]


def _id_and_text(payload: Mapping[str, Any]) -> tuple[str, str]:
    if "exact" in payload:
        id, text = _unpacked(payload["exact"])
        return id, text
    return payload["id"], payload.get("text", "")


def _packed(value: Any) -> str:
    """Return JSON text; as hexadecimal digits where UTF-8 cannot carry it."""
    text = json.dumps(value, ensure_ascii=False)
    return text if is_unicode(text) else f"x{text.encode('utf-8', 'surrogatepass').hex()}"


def _unpacked(text: str) -> Any:
    if text.startswith("x"):
        text = bytes.fromhex(text[1:]).decode("utf-8", "surrogatepass")
    return json.loads(text)


def _replaced(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def vectors_of(
    representations: Representations, stored: Sequence[Output], row: int
) -> dict[str, Vector]:
    """Return what is kept of one row; an empty sparse row has no vector."""
    vectors: dict[str, Vector] = {}
    if "dense" in stored:
        vectors["dense"] = representations.require("dense")[row].tolist()
    if "sparse" in stored and (terms := terms_of(representations.require("sparse"), row)):
        vectors["sparse"] = terms
    if "colbert" in stored:
        tokens = representations.require("colbert")
        # an engine keeps no empty list of vectors; a zero vector scores 0, as none at all does
        vectors["colbert"] = tokens[row].tolist() or [[0.0] * tokens.dimension]
    return vectors


def terms_of(matrix: sp.csr_array, row: int) -> Terms | None:
    """Return a row's weights that are not 0; None where there are none.

    >>> terms_of(sp.csr_array([[0.0, 2.0, 0.0]]), 0)
    Terms(indices=[1], values=[2.0])
    """
    part = slice(matrix.indptr[row], matrix.indptr[row + 1])
    weights: dict[int, float] = {}
    for index, value in zip(matrix.indices[part].tolist(), matrix.data[part].tolist(), strict=True):
        weights[index] = weights.get(index, 0.0) + value
    kept = sorted((index, value) for index, value in weights.items() if value)
    return Terms([index for index, _ in kept], [value for _, value in kept]) if kept else None


def representations_of(
    found: Sequence[Found], outputs: Sequence[Output], widths: Mapping[str, int]
) -> Representations:
    """Return what points keep, a row a point, in that order."""
    made: dict[str, Any] = {}
    if "dense" in outputs:
        rows = [point.vectors["dense"] for point in found]
        made["dense"] = np.array(rows, np.float32).reshape(len(found), widths["dense"])
    if "sparse" in outputs:
        made["sparse"] = _sparse_rows([point.vectors.get("sparse") for point in found], widths)
    if "colbert" in outputs:
        empty = np.empty((0, widths["colbert"]), np.float32)
        tokens = [
            empty if point.payload.get("bare") else np.array(point.vectors["colbert"], np.float32)
            for point in found
        ]
        made["colbert"] = MultiVectors.from_rows(tokens, dimension=widths["colbert"])
    return Representations(**made)


def _sparse_rows(rows: Sequence[Vector | None], widths: Mapping[str, int]) -> sp.csr_array:
    terms = [row if isinstance(row, Terms) else Terms([], []) for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(row.indices) for row in terms])])
    matrix = sp.csr_array(
        (
            np.array([value for row in terms for value in row.values], np.float32),
            np.array([index for row in terms for index in row.indices], np.int64),
            offsets.astype(np.int64),
        ),
        shape=(len(terms), widths["sparse"]),
    )
    matrix.sort_indices()
    return matrix
