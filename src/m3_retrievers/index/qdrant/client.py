"""A collection of a Qdrant server or cluster, through qdrant-client."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from m3_retrievers.index.qdrant.client_shapes import (
    condition,
    point_of,
    request,
    vectors_config,
)
from m3_retrievers.index.qdrant.connection import Connection
from m3_retrievers.index.qdrant.requests import (
    Clause,
    Found,
    Layout,
    Nearest,
    Point,
    WeightedSum,
    found,
)

_NOTE = "m3_retrievers"


class ClientEngine:
    """One collection; its note lies in the collection's metadata."""

    remote = True

    def __init__(self, connection: Connection, collection: str) -> None:
        self._connection, self._name = connection, collection
        # keeps the note for as long as the first add has not said how wide the vectors are
        self._waiting = f"{collection}.note"
        self.place = f"{connection.place}/{collection}"

    # The collection

    def read_note(self) -> dict[str, Any]:
        """Return the JSON kept in the collection's metadata; {} where there is none."""
        for name in (self._name, self._waiting):
            if self._connection.call("collection_exists", name):
                answer = self._connection.call("get_collection", name, passing=404)
                kept = answer and (answer.config.metadata or {}).get(_NOTE)
                note: dict[str, Any] = json.loads(kept) if kept else {"foreign": True}
                return note
        return {}

    def write_note(self, note: Mapping[str, Any]) -> None:
        """Keep JSON in the collection's metadata."""
        # as one text: metadata is merged key by key, a text gives way whole
        metadata = {_NOTE: json.dumps(note)}
        call = self._connection.call
        if call("collection_exists", self._name):
            call("update_collection", self._name, metadata=metadata)
        elif call("collection_exists", self._waiting):
            call("update_collection", self._waiting, metadata=metadata)
        else:
            call("create_collection", self._waiting, vectors_config={}, metadata=metadata)

    def create(self, layout: Layout, note: Mapping[str, Any]) -> None:
        """Make the collection, and its indices over ``facts`` and ``n``."""
        vectors, sparse = vectors_config(layout)
        call = self._connection.call
        call(
            "create_collection",
            self._name,
            vectors_config=vectors,
            sparse_vectors_config=sparse,
            metadata={_NOTE: json.dumps(note)},
            passing=409,  # another process has made it
        )
        if self._connection.indexes:
            for field, schema in (("n", "integer"), ("facts", "keyword")):
                call("create_payload_index", self._name, field, schema, wait=True)
        call("delete_collection", self._waiting)

    def index_numbers(self, key: str) -> None:
        """Index the numbers under a key of the payload; the local mode has no indices."""
        if self._connection.indexes:
            self._connection.call("create_payload_index", self._name, key, "float", wait=True)

    def optimize(self) -> None:
        """Do nothing: a server merges and indexes by itself."""

    def close(self) -> None:
        """Close the connection, where it is the index's own."""
        self._connection.close()

    # Points in and out

    def count(self) -> int:
        """Return the number of points."""
        answer = self._connection.call("count", self._name, exact=True, passing=404)
        return 0 if answer is None else int(answer.count)

    def upsert(self, points: Sequence[Point], *, only_new: bool) -> None:
        """Write points; waits until it is done."""
        from qdrant_client import models

        mode = models.UpdateMode.INSERT_ONLY if only_new else models.UpdateMode.UPSERT
        made = list(map(point_of, points))
        self._connection.call("upsert", self._name, points=made, update_mode=mode, wait=True)

    def delete(self, clause: Clause) -> None:
        """Remove the points under a condition; waits until it is done."""
        from qdrant_client import models

        selector = models.FilterSelector(filter=condition(clause))
        self._connection.call("delete", self._name, points_selector=selector, wait=True)

    def retrieve(
        self, ids: Sequence[str], *, payload: tuple[str, ...] | None, vectors: Sequence[str] = ()
    ) -> dict[str, Found]:
        """Return the points that are there, by id."""
        records = self._connection.call(
            "retrieve",
            self._name,
            ids=list(ids),
            with_payload=True if payload is None else list(payload),
            with_vectors=list(vectors) or False,
            passing=404,
        )
        return {str(record.id): found(record) for record in records or ()}

    def scroll(
        self, clause: Clause, *, limit: int, payload: tuple[str, ...], newest: bool = False
    ) -> list[Found]:
        """Return the first or the newest points under a condition, in order of insertion."""
        from qdrant_client import models

        direction = models.Direction.DESC if newest else models.Direction.ASC

        answer = self._connection.call(
            "scroll",
            self._name,
            scroll_filter=condition(clause),
            limit=limit,
            order_by=models.OrderBy(key="n", direction=direction),
            with_payload=list(payload),
            with_vectors=False,
            passing=404,
        )
        return [found(record) for record in answer[0]] if answer else []

    def query(self, searches: Sequence[Nearest | WeightedSum]) -> list[list[Found]]:
        """Return what each search finds, all of them in one request."""
        requests = [request(search, params=self._connection.indexes) for search in searches]
        answers = self._connection.call(
            "query_batch_points", self._name, requests=requests, passing=404
        )
        if answers is None:
            return [[] for _ in searches]
        return [[found(point) for point in answer.points] for answer in answers]
