"""A query as the engine is asked it, in each mode."""

from __future__ import annotations

from dataclasses import dataclass

from m3_retrievers.index.qdrant.agreed import Agreement
from m3_retrievers.index.qdrant.points import terms_of
from m3_retrievers.index.qdrant.requests import Vector
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import Mode


@dataclass(frozen=True, slots=True)
class Asked:
    """A query's vector in one mode, and what the engine's score is divided by."""

    vector: Vector
    tokens: int = 1


def asked_of(query: Query, mode: Mode, agreement: Agreement) -> Asked | None:
    """Return the query, which was checked, in one mode; None where it has no terms."""
    if mode == "bm25":
        terms = agreement.bm25.query(query.text) if agreement.bm25 else None
        return None if terms is None else Asked(terms)
    value = query.representations.require(mode)
    if mode == "dense":
        return Asked(value[0].tolist())
    if mode == "sparse":
        weights = terms_of(value, 0)
        return None if weights is None else Asked(weights)
    # Qdrant's MaxSim is a sum over the query's tokens, the paper's a mean
    rows = value[0].tolist()
    return Asked(rows or [[0.0] * value.dimension], max(1, len(rows)))
