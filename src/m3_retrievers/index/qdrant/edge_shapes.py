"""Points, searches and collections in qdrant-edge's own classes."""

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
    import qdrant_edge as qe

    vectors = {name: _vector(value) for name, value in point.vectors.items()}
    return qe.Point(point.id, vectors, dict(point.payload))


def _vector(vector: Vector) -> Any:
    import qdrant_edge as qe

    return qe.SparseVector(vector.indices, vector.values) if isinstance(vector, Terms) else vector


def request(search: Nearest | WeightedSum) -> Any:
    """Return a search as one of a batch."""
    import qdrant_edge as qe

    if isinstance(search, WeightedSum):
        parts = [
            qe.Expression.Mult([qe.Expression.Constant(w), qe.Expression.Variable(f"$score[{at}]")])
            for at, w in enumerate(search.weights)
        ]
        missing = {f"$score[{at}]": 0.0 for at in range(len(parts))}
        return qe.QueryRequest(
            limit=search.limit,
            query=qe.Formula(qe.Expression.Sum(parts), missing),
            prefetches=[_prefetch(leg) for leg in search.legs],
            with_payload=True,
        )
    return qe.QueryRequest(
        limit=search.limit,
        query=qe.Query.Nearest(_vector(search.vector), using=search.using),
        prefetches=[_prefetch(inner) for inner in search.among],
        filter=condition(search.filter),
        params=_params(search),
        with_payload=True if search.payload is None else list(search.payload),
    )


def _prefetch(search: Nearest) -> Any:
    import qdrant_edge as qe

    return qe.Prefetch(
        limit=search.limit,
        query=qe.Query.Nearest(_vector(search.vector), using=search.using),
        prefetches=[_prefetch(inner) for inner in search.among],
        filter=condition(search.filter),
        params=_params(search),
    )


def _params(search: Nearest) -> Any:
    import qdrant_edge as qe

    ignore = qe.QuantizationSearchParams(ignore=True) if search.original else None
    return qe.SearchParams(exact=search.exact, quantization=ignore)


def condition(clause: Clause) -> Any:
    """Return a clause as a filter."""
    import qdrant_edge as qe

    if isinstance(clause, Every):
        return qe.Filter(must=[condition(part) for part in clause.parts])
    if isinstance(clause, Some):
        return qe.Filter(should=[condition(part) for part in clause.parts])
    if isinstance(clause, Never):
        return qe.Filter(must_not=[condition(clause.part)])
    if isinstance(clause, HasId):
        return qe.Filter(must=[qe.HasIdCondition(set(clause.points))])
    if isinstance(clause, Nested):
        return qe.Filter(must=[qe.NestedCondition(clause.key, condition(clause.part))])
    if isinstance(clause, Match):
        match = qe.FieldCondition(clause.key, match=qe.MatchAny(list(clause.values)))
        return qe.Filter(must=[match])
    bounds = qe.RangeFloat(gt=clause.gt, gte=clause.gte, lt=clause.lt, lte=clause.lte)
    return qe.Filter(must=[qe.FieldCondition(clause.key, range=bounds)])


def config(layout: Layout) -> Any:
    """Return a collection to be made."""
    import qdrant_edge as qe

    types = {
        "float32": qe.VectorStorageDatatype.Float32,
        "float16": qe.VectorStorageDatatype.Float16,
    }
    quantized = {
        None: None,
        "scalar": qe.ScalarQuantizationConfig(qe.ScalarType.Int8),
        "binary": qe.BinaryQuantizationConfig(),
    }
    storage, vectors, sparse = layout.storage, {}, {}
    if "dense" in layout.widths:
        vectors["dense"] = qe.EdgeVectorParams(
            layout.widths["dense"],
            qe.Distance.Dot,
            datatype=types[storage.dense],
            quantization_config=quantized[storage.quantization],
        )
    if "colbert" in layout.widths:
        vectors["colbert"] = qe.EdgeVectorParams(
            layout.widths["colbert"],
            qe.Distance.Dot,
            multivector_config=qe.MultiVectorConfig(qe.MultiVectorComparator.MaxSim),
            datatype=types[storage.colbert],
            hnsw_config=qe.HnswIndexConfig(0, 100, 10_000),  # no graph: it only scores
        )
    if "sparse" in layout.widths:
        sparse["sparse"] = qe.EdgeSparseVectorParams()
    if layout.bm25:
        sparse["bm25"] = qe.EdgeSparseVectorParams(modifier=qe.Modifier.Idf)
    return qe.EdgeConfig(vectors=vectors, sparse_vectors=sparse)
