"""The documents of an index: rows of one collection, each with what lies in parts beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from m3_retrievers.index.milvus.collection import Collection
from m3_retrievers.index.milvus.layout import Layout, Row
from m3_retrievers.index.milvus.parts import Parts, parts_of
from m3_retrievers.index.milvus.rows import key_of, row_of
from m3_retrievers.types.hits import Record
from m3_retrievers.types.representations import Representations

RECORD = ("id", "text", "metadata")
_ALWAYS = ("key", "place", "parts", "long")
_ROWS_A_PAGE = 4000
_ROWS_WITH_VECTORS = 1000
_ROWS_WITH_PARTS = 100
# Between a row and its parts another process may replace the document; then both are read anew.
_READS = 3


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of an index that has a layout, the collection made or not.

    What is wanted of them has the names of a record's fields and of outputs.
    """

    collection: Collection
    parts: Parts
    layout: Layout

    def named(self, keys: Sequence[str], wanted: Sequence[str]) -> dict[str, Row]:
        """Return the rows of those keys that are there, by key."""
        found: dict[str, Row] = {}
        waiting = list(dict.fromkeys(keys))
        for _ in range(_READS):
            pages = self.collection.named(waiting, self._fields(wanted))
            rows = [row for page in pages for row in page]
            found |= {row["key"]: row for row in self._whole(rows, wanted)}
            waiting = [row["key"] for row in rows if row["key"] not in found]
            if not waiting:
                break
        return found

    def pages(
        self, expression: str, wanted: Sequence[str], *, keys: Sequence[str] | None = None
    ) -> Iterator[list[Row]]:
        """Yield the rows that an expression admits, of these keys or of all, some at a time."""
        at_once = _ROWS_WITH_VECTORS if {"dense", "sparse"} & {*wanted} else _ROWS_A_PAGE
        at_once = _ROWS_WITH_PARTS if "colbert" in wanted else at_once
        fields = self._fields(wanted)
        for rows in self.collection.pages(expression, fields, keys=keys, at_once=at_once):
            whole = self._whole(rows, wanted)
            if len(whole) < len(rows):
                there = {row["key"] for row in whole}
                torn = [row["key"] for row in rows if row["key"] not in there]
                whole += self.named(torn, wanted).values()
            yield whole

    def write(
        self, records: Sequence[Record], places: Sequence[int], representations: Representations
    ) -> None:
        """Write documents, each in the place of the one with its id."""
        rows, heads = zip(*map(row_of, records, places), strict=True)
        row_bytes = self.layout.row_bytes(representations)
        blobs = self.layout.blobs(representations)
        for row, fields, head, blob in zip(
            rows, self.layout.rows(representations), heads, blobs, strict=True
        ):
            row |= {**fields, "parts": parts_of(head + blob)}
        before = self._owned([row["key"] for row in rows])
        # parts are of one version of a document: whoever reads a row finds its own parts, or none
        owned = {
            _owner(row): head + blob for row, head, blob in zip(rows, heads, blobs, strict=True)
        }
        self.parts.put({owner: value for owner, value in owned.items() if value})
        self.collection.write(rows, row_bytes=row_bytes)
        self.parts.remove(before)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove documents by id."""
        keys = [key_of(id) for id in ids]
        before = self._owned(keys)
        self.collection.remove(keys)
        self.parts.remove(before)

    def _owned(self, keys: Sequence[str]) -> dict[str, int]:
        """Return the owners of parts of these documents, and how many each has."""
        rows = [row for page in self.collection.named(keys, _ALWAYS) for row in page]
        return {_owner(row): row["parts"] for row in rows if row["parts"]}

    def _fields(self, wanted: Sequence[str]) -> list[str]:
        beside = {"colbert"} if self.layout.parts else set()
        return [*_ALWAYS, *(name for name in wanted if name not in beside)]

    def _whole(self, rows: Sequence[Row], wanted: Sequence[str]) -> list[Row]:
        """Return the rows whose parts are there, with what the parts hold, where it is wanted."""
        vectors = self.layout.parts and "colbert" in wanted
        head = bool({"text", "metadata"} & {*wanted})
        of = [row for row in rows if row["parts"] and (vectors or (head and row["long"]))]
        blobs = self.parts.get({_owner(row): row["parts"] for row in of}) if of else {}
        torn = {row["key"] for row in of if _owner(row) not in blobs}
        return [
            {**row, "blob": blobs.get(_owner(row), b"")} for row in rows if row["key"] not in torn
        ]


def _owner(row: Row) -> str:
    return f"{row['key']}-{row['place']}"
