"""One collection of Milvus: rows in and out by key, pages of all of them, the best of a field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from m3_retrievers.errors import IndexUnavailableError
from m3_retrievers.index.milvus.connection import Connection, index_params, schema
from m3_retrievers.index.milvus.rows import given

Row = dict[str, Any]
T = TypeVar("T")

# What Milvus answers to one search at most.
MOST_HITS = 16_384
_KEYS_A_REQUEST = 1000
_ROWS_A_PAGE = 4000
# A request of a server ends at 64 MB; a number of a vector takes up to 5 bytes on its way.
_REQUEST_BYTES = 32_000_000
# Rows that came in since the last flush make Milvus Lite's searches slow: it looks through them
# one by one (5,000 of them: 0.5 s a search, 0.03 s after a flush). More at once than a search
# should wait for are flushed while they come in.
_PENDING, _MOST_PENDING = 500, 5000
# A flush inside this process takes its time: seconds, or minutes on a busy machine.
_PATIENCE = 3600.0


class Collection:
    """A collection by name, which may not be there yet: then nothing is in it."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self._connection = connection
        self._there = False
        self._pending = 0

    def exists(self) -> bool:
        """Return whether it was made, here or by another process."""
        if not self._there and self._call("has_collection"):
            self._call("load_collection")
            self._there = True
        return self._there

    def make(
        self,
        fields: Sequence[Mapping[str, Any]],
        indexes: Sequence[Mapping[str, Any]],
        *,
        vectors: Mapping[str, Any] | None = None,
    ) -> None:
        """Make it, unless it is there."""
        if self.exists():
            return
        try:
            self._call(
                "create_collection",
                schema=schema(fields, vectors=vectors),
                consistency_level="Strong",
            )
            # of no rows: nothing to wait for, and the client would sleep half a second for each
            self._call("create_index", index_params=index_params(indexes), sync=False)
            self._call("load_collection")
        except IndexUnavailableError:
            if not self.exists():  # another process was faster
                raise
        self._there = True

    def count(self) -> int:
        """Return the number of rows."""
        if not self.exists():
            return 0
        [answer] = self._query("", ["count(*)"])
        return int(answer["count(*)"])

    def write(self, rows: Iterable[Row], *, row_bytes: int) -> None:
        """Write rows in place of those with their keys; row_bytes: how large one is at most.

        What fits into 32 MB is one request, and there whole or not at all.
        """
        for some in batched(rows, max(1, _REQUEST_BYTES // row_bytes)):
            self._call("upsert", data=some)
            self._pending += len(some)
            self._settle(_MOST_PENDING)

    def remove(self, keys: Sequence[str]) -> None:
        """Remove rows by key."""
        if self.exists():
            for some in batched(keys, _KEYS_A_REQUEST):
                self._call("delete", ids=some)

    def named(
        self, keys: Sequence[str], fields: Sequence[str], *, at_once: int = _KEYS_A_REQUEST
    ) -> Iterator[list[Row]]:
        """Yield the rows of those keys that are there, some at a time, in no order."""
        if self.exists():
            for some in batched(keys, at_once):
                yield self._query(among(some), fields)

    def pages(
        self,
        expression: str,
        fields: Sequence[str],
        *,
        keys: Sequence[str] | None = None,
        at_once: int = _ROWS_A_PAGE,
    ) -> Iterator[list[Row]]:
        """Yield the rows that an expression admits, some at a time, in no order.

        keys: what of them is wanted, None for all.
        """
        self._settle(_PENDING)
        slices = self._slices(at_once) if keys is None else map(among, batched(keys, at_once))
        for some in slices if self.exists() else ():
            if rows := self._query(f"({expression}) and ({some})", fields):
                yield rows

    def _slices(self, at_once: int) -> Iterator[str]:
        """Yield expressions that together admit all rows, about so many each at most.

        Keys are digests, so that each beginning of a key has as many rows as any other.
        """
        count, digits = self.count(), 0
        while 16**digits * at_once < count:
            digits += 1
        for number in range(16**digits):
            yield f'key like "{number:0{digits}x}%"' if digits else 'key like "%"'

    def best(
        self, field: str, vector: Any, *, k: int, expression: str
    ) -> list[tuple[float, int, str]]:
        """Return score, place and id of the k best rows by inner product, and ties with the last.

        Which of two equal scores Milvus returns is its own choice: all of them are asked for.
        """
        self._settle(_PENDING)
        limit = min(k + 16, MOST_HITS)
        while True:
            [found] = self._call(
                "search",
                data=[vector],
                anns_field=field,
                limit=limit,
                filter=expression,
                output_fields=["place", "id"],
                search_params=_EXACTLY.get(field, {}),
                consistency_level="Strong",
            )
            hits = [
                (float(hit["distance"]), int(hit["entity"]["place"]), given(hit["entity"]["id"]))
                for hit in found
            ]
            cut = len(hits) == limit and limit < MOST_HITS and hits[k - 1][0] == hits[-1][0]
            if not cut:
                return hits
            limit = min(2 * limit, MOST_HITS)

    def _query(self, expression: str, fields: Sequence[str]) -> list[Row]:
        answer = self._call(
            "query", filter=expression, output_fields=list(fields), consistency_level="Strong"
        )
        return [dict(row) for row in answer]

    def _settle(self, most: int) -> None:
        """Let Milvus Lite index what came in, where that is as much as this."""
        if self._connection.path is None or self._pending < most:
            return
        self._call("has_collection")  # an error in time, if nobody is there any more
        self._call("flush", timeout=_PATIENCE)
        self._pending = 0

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._connection.call(method, collection_name=self.name, **arguments)


_EXACTLY = {
    "dense": {"metric_type": "IP"},
    "sparse": {"metric_type": "IP", "params": {"drop_ratio_search": 0.0}},
    "colbert[v]": {"metric_type": "MAX_SIM_IP"},
}


def among(keys: Sequence[str]) -> str:
    """Return the expression for rows of these keys, which are ours: digests and plain names."""
    listed = ", ".join(f'"{key}"' for key in keys)
    return f"key in [{listed}]"


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of that size, the last one shorter."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
