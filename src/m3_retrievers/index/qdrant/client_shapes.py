"""Points, searches and collections in qdrant-client's own classes."""

from __future__ import annotations

from typing import Any

from m3_retrievers.index.qdrant.requests import (
    Clause,
    Every,
    HasId,
    Layout,
    Match,
    Nearest,
    Nested,
    Never,
    Point,
    Some,
    Terms,
    Vector,
    WeightedSum,
)


def point_of(point: Point) -> Any:
    """Return a point to be written."""
    from qdrant_client import models

    vectors = {name: _vector(value) for name, value in point.vectors.items()}
    return models.PointStruct(id=point.id, vector=vectors, payload=dict(point.payload))


def _vector(vector: Vector) -> Any:
    from qdrant_client import models

    if isinstance(vector, Terms):
        return models.SparseVector(indices=vector.indices, values=vector.values)
    return vector


def request(search: Nearest | WeightedSum, *, params: bool) -> Any:
    """Return a search as one of a batch; params: whether the engine has search parameters."""
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
        "filter": condition(search.filter),
        "prefetch": [models.Prefetch(**_fields(one, params=params)) for one in search.among]
        or None,
        "params": models.SearchParams(exact=search.exact, quantization=ignore) if params else None,
    }


def condition(clause: Clause) -> Any:
    """Return a clause as a filter."""
    from qdrant_client import models

    if isinstance(clause, Every):
        return models.Filter(must=[condition(part) for part in clause.parts])
    if isinstance(clause, Some):
        return models.Filter(should=[condition(part) for part in clause.parts])
    if isinstance(clause, Never):
        return models.Filter(must_not=[condition(clause.part)])
    if isinstance(clause, HasId):
        return models.Filter(must=[models.HasIdCondition(has_id=sorted(clause.points))])
    if isinstance(clause, Nested):
        nested = models.Nested(key=clause.key, filter=condition(clause.part))
        return models.Filter(must=[models.NestedCondition(nested=nested)])
    if isinstance(clause, Match):
        match = models.MatchAny(any=list(clause.values))
        return models.Filter(must=[models.FieldCondition(key=clause.key, match=match)])
    bounds = models.Range(gt=clause.gt, gte=clause.gte, lt=clause.lt, lte=clause.lte)
    return models.Filter(must=[models.FieldCondition(key=clause.key, range=bounds)])


def vectors_config(layout: Layout) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the dense and the sparse vectors of a collection to be made."""
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
