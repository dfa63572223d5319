"""A collection of a Qdrant server or cluster, through qdrant-client."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from m3_retrievers.index.qdrant.connection import Connection
from m3_retrievers.index.qdrant.requests import (
    Clause,
    Every,
    Found,
    HasId,
    Layout,
    Match,
    Nearest,
    Never,
    Point,
    Some,
    Terms,
    Vector,
    WeightedSum,
)

_NOTE = "m3_retrievers"


class ClientEngine:
    """One collection; its note lies in the collection's metadata."""

    remote = True

    def __init__(self, connection: Connection, collection: str) -> None:
        self._connection, self._name = connection, collection
        self.place = f"{connection.place}/{collection}"

    # The collection

    def read_note(self) -> dict[str, Any]:
        """Return the JSON kept in the collection's metadata; {} where there is none."""
        if not self._connection.call("collection_exists", self._name):
            return {}
        found = self._connection.call("get_collection", self._name)
        kept = (found.config.metadata or {}).get(_NOTE)
        note: dict[str, Any] = {"foreign": True} if kept is None else json.loads(kept)
        return note

    def write_note(self, note: Mapping[str, Any]) -> None:
        """Keep JSON in the collection's metadata."""
        # as one text: metadata is merged key by key, a text gives way whole
        metadata = {_NOTE: json.dumps(note)}
        self._connection.call("update_collection", self._name, metadata=metadata)

    def create(self, layout: Layout, note: Mapping[str, Any]) -> None:
        """Make the collection, and its indices over ``facts`` and ``n``."""
        vectors, sparse = _vectors_config(layout)
        self._connection.call(
            "create_collection",
            self._name,
            vectors_config=vectors,
            sparse_vectors_config=sparse,
            metadata={_NOTE: json.dumps(note)},
            passing=409,  # another process has made it
        )
        if self._connection.indexes:
            for field, schema in (("n", "integer"), ("facts", "keyword")):
                self._connection.call("create_payload_index", self._name, field, schema, wait=True)

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
        made = [
            models.PointStruct(
                id=point.id,
                vector={name: _vector(value) for name, value in point.vectors.items()},
                payload=dict(point.payload),
            )
            for point in points
        ]
        self._connection.call("upsert", self._name, points=made, update_mode=mode, wait=True)

    def delete(self, clause: Clause) -> None:
        """Remove the points under a condition; waits until it is done."""
        from qdrant_client import models

        selector = models.FilterSelector(filter=_filter(clause))
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
        return {str(record.id): _found(record) for record in records or ()}

    def scroll(
        self, clause: Clause, *, limit: int, payload: tuple[str, ...], newest: bool = False
    ) -> list[Found]:
        """Return the first or the newest points under a condition, in order of insertion."""
        from qdrant_client import models

        direction = models.Direction.DESC if newest else models.Direction.ASC

        answer = self._connection.call(
            "scroll",
            self._name,
            scroll_filter=_filter(clause),
            limit=limit,
            order_by=models.OrderBy(key="n", direction=direction),
            with_payload=list(payload),
            with_vectors=False,
            passing=404,
        )
        return [_found(record) for record in answer[0]] if answer else []

    def query(self, searches: Sequence[Nearest | WeightedSum]) -> list[list[Found]]:
        """Return what each search finds, all of them in one request."""
        requests = [_request(search, params=self._connection.indexes) for search in searches]
        answers = self._connection.call(
            "query_batch_points", self._name, requests=requests, passing=404
        )
        if answers is None:
            return [[] for _ in searches]
        return [[_found(point) for point in answer.points] for answer in answers]


def _found(point: Any) -> Found:
    vectors = point.vector if isinstance(point.vector, dict) else {}
    return Found(
        id=str(point.id),
        payload=point.payload or {},
        vectors={name: _read(vector) for name, vector in vectors.items()},
        score=float(getattr(point, "score", 0.0)),
    )


def _read(vector: Any) -> Vector:
    if hasattr(vector, "indices"):
        return Terms(list(vector.indices), list(vector.values))
    return vector  # type: ignore[no-any-return]


def _vector(vector: Vector) -> Any:
    from qdrant_client import models

    if isinstance(vector, Terms):
        return models.SparseVector(indices=vector.indices, values=vector.values)
    return vector


def _request(search: Nearest | WeightedSum, *, params: bool) -> Any:
    from qdrant_client import models

    if isinstance(search, Nearest):
        payload = True if search.payload is None else list(search.payload) or False
        fields = _fields(search, params=params)
        return models.QueryRequest(**fields, with_payload=payload)
    parts: list[Any] = [
        models.MultExpression(mult=[weight, f"$score[{at}]"])
        for at, weight in enumerate(search.weights)
    ]
    missing = {f"$score[{at}]": 0.0 for at in range(len(parts))}
    return models.QueryRequest(
        prefetch=[models.Prefetch(**_fields(leg, params=params)) for leg in search.legs],
        query=models.FormulaQuery(formula=models.SumExpression(sum=parts), defaults=missing),
        limit=search.limit,
        with_payload=True,
    )


def _fields(search: Nearest, *, params: bool) -> dict[str, Any]:
    """Return what a request and a prefetch of it have in common."""
    from qdrant_client import models

    ignore = models.QuantizationSearchParams(ignore=True) if search.original else None
    return {
        "query": _vector(search.vector),
        "using": search.using,
        "limit": search.limit,
        "filter": _filter(search.filter),
        "prefetch": [models.Prefetch(**_fields(one, params=params)) for one in search.among]
        or None,
        "params": models.SearchParams(exact=search.exact, quantization=ignore) if params else None,
    }


def _filter(clause: Clause) -> Any:
    from qdrant_client import models

    if isinstance(clause, Every):
        return models.Filter(must=[_filter(part) for part in clause.parts])
    if isinstance(clause, Some):
        return models.Filter(should=[_filter(part) for part in clause.parts])
    if isinstance(clause, Never):
        return models.Filter(must_not=[_filter(clause.part)])
    if isinstance(clause, HasId):
        return models.Filter(must=[models.HasIdCondition(has_id=sorted(clause.points))])
    if isinstance(clause, Match):
        match = models.MatchAny(any=list(clause.values))
        return models.Filter(must=[models.FieldCondition(key=clause.key, match=match)])
    bounds = models.Range(gt=clause.gt, gte=clause.gte, lt=clause.lt, lte=clause.lte)
    return models.Filter(must=[models.FieldCondition(key=clause.key, range=bounds)])


def _vectors_config(layout: Layout) -> tuple[dict[str, Any], dict[str, Any]]:
    from qdrant_client import models

    quantized = {
        None: None,
        "scalar": models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
        ),
        "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig()),
    }
    storage, vectors, sparse = layout.storage, {}, {}
    if "dense" in layout.widths:
        vectors["dense"] = models.VectorParams(
            size=layout.widths["dense"],
            distance=models.Distance.DOT,
            datatype=models.Datatype(storage.dense),
            quantization_config=quantized[storage.quantization],
        )
    if "colbert" in layout.widths:
        vectors["colbert"] = models.VectorParams(
            size=layout.widths["colbert"],
            distance=models.Distance.DOT,
            multivector_config=models.MultiVectorConfig(
                comparator=models.MultiVectorComparator.MAX_SIM
            ),
            datatype=models.Datatype(storage.colbert),
            hnsw_config=models.HnswConfigDiff(m=0),  # no graph: it only scores
            on_disk=True,  # some 100 times the size of the dense vectors
        )
    if "sparse" in layout.widths:
        sparse["sparse"] = models.SparseVectorParams()
    if layout.bm25:
        sparse["bm25"] = models.SparseVectorParams(modifier=models.Modifier.IDF)
    return vectors, sparse
