"""Bytes of any length beside the documents: ColBERT vectors, settings, a note.

Milvus's fields end at 65,535 bytes, and Milvus Lite knows no binary ones: bytes are kept as
base64, in as many rows of a second collection as they need.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from m3_retrievers.errors import IndexCorruptError, InputError
from m3_retrievers.index.milvus.collection import Collection
from m3_retrievers.index.milvus.connection import Connection
from m3_retrievers.index.milvus.layout import part_fields, part_indexes
from m3_retrievers.index.milvus.rows import MOST_BYTES

# Bytes of a part, a multiple of 3 so that its base64 has no padding.
_PART = MOST_BYTES // 4 * 3
# A server answers with 100 MB at most.
_PARTS_A_REQUEST = 500


class Parts:
    """The second collection of an index; made when something is first written to it."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._collection = Collection(connection, name)

    def put(self, values: Mapping[str, bytes]) -> None:
        """Keep bytes by owner."""
        rows = (
            {"key": key, "data": base64.b64encode(value[at : at + _PART]).decode()}
            for owner, value in values.items()
            for key, at in zip(
                _keys(owner, parts_of(value)), range(0, len(value), _PART), strict=True
            )
        )
        self._write(rows)

    def get(self, counts: Mapping[str, int]) -> dict[str, bytes]:
        """Return the bytes of the owners, of so many parts each, all of whose parts are there."""
        keys = [key for owner, count in counts.items() for key in _keys(owner, count)]
        found = self._read(keys)
        return {
            owner: b"".join(base64.b64decode(found[key]) for key in _keys(owner, count))
            for owner, count in counts.items()
            if all(key in found for key in _keys(owner, count))
        }

    def remove(self, counts: Mapping[str, int]) -> None:
        """Remove the parts of these owners."""
        keys = [key for owner, count in counts.items() for key in _keys(owner, count)]
        self._collection.remove(keys)

    def read_record(self, name: str) -> dict[str, Any]:
        """Return a JSON record by name; {} for none."""
        found = self._read([name]).get(name)
        if found is None:
            return {}
        try:
            return dict(json.loads(found))
        except (TypeError, ValueError) as error:
            raise IndexCorruptError(
                f"expected JSON under {name!r} in the collection {self._collection.name!r}, got "
                f"{found!r:.60}. Another program wrote it: choose another collection."
            ) from error

    def write_record(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep a JSON record by name."""
        text = json.dumps(record)
        if len(text) > MOST_BYTES:
            raise InputError(
                f"Milvus keeps a record of at most {MOST_BYTES:,} bytes beside the documents, got "
                f"{len(text):,}. Keep less in extra=."
            )
        self._write([{"key": name, "data": text}])

    def _write(self, rows: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> None:
        self._collection.make(part_fields(), part_indexes())
        self._collection.write(
            ({**row, "none": [0.0, 0.0]} for row in rows), row_bytes=MOST_BYTES + 200
        )

    def _read(self, keys: Sequence[str]) -> dict[str, str]:
        pages = self._collection.named(keys, ["key", "data"], at_once=_PARTS_A_REQUEST)
        return {row["key"]: row["data"] for page in pages for row in page}


def parts_of(value: bytes) -> int:
    """Return how many parts bytes have."""
    return -(-len(value) // _PART)


def _keys(owner: str, count: int) -> list[str]:
    return [f"{owner}-{number}" for number in range(count)]
