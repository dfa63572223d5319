"""One VectorStoreQuery answered by a HybridRetriever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from m3_retrievers.checks import check_k
from m3_retrievers.errors import InputError
from m3_retrievers.index.base import Filter
from m3_retrievers.index.search import recall
from m3_retrievers.llama_index.nodes import ScoredNode, from_hit, from_ranking
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import HybridWeights, Mode, Plan, Recall
from m3_retrievers.types.representations import Output, Representations

_LEG: dict[VectorStoreQueryMode, Mode] = {
    VectorStoreQueryMode.DEFAULT: "dense",
    VectorStoreQueryMode.SPARSE: "sparse",
    VectorStoreQueryMode.TEXT_SEARCH: "bm25",
}


def answer(
    hybrid: HybridRetriever, query: VectorStoreQuery, *, filter: Filter | None
) -> VectorStoreQueryResult:
    """Return the best nodes in the query's mode, with their scores, best first.

    Raises InputError for a mode that this package or this index does not have, for
    ``alpha`` outside 0..1, and for a question without text where text is needed.
    """
    if query.mode is VectorStoreQueryMode.HYBRID:
        found = _by_all(hybrid, query, filter)
    elif query.mode in _LEG:
        found = _by_one(hybrid, query, filter)
    else:
        known = [mode.value for mode in (*_LEG, VectorStoreQueryMode.HYBRID)]
        raise InputError(f"mode expects one of {known}, got {query.mode.value!r}.")
    return VectorStoreQueryResult(
        nodes=[one.node for one in found],
        similarities=[one.get_score() for one in found],
        ids=[one.node_id for one in found],
    )


def _by_one(
    hybrid: HybridRetriever, query: VectorStoreQuery, filter: Filter | None
) -> list[ScoredNode]:
    leg = _LEG[query.mode]
    if leg not in hybrid.index.modes:
        raise InputError(
            f"mode {query.mode.value!r} expects an index that scores {leg!r}, got one with "
            f"{sorted(hybrid.index.modes)}. Make the store with "
            f"HybridRetriever(encoder, legs={(*hybrid.legs, leg)!r})."
        )
    depth = query.sparse_top_k if leg == "sparse" else None
    k = query.similarity_top_k if depth is None else depth
    check_k(k, name="similarity_top_k")
    asked, ids = _asked(hybrid, query, leg), query.node_ids or None
    ranking = recall(hybrid.index, asked, leg, k=k, filter=filter, ids=ids)
    return from_ranking(hybrid.index, ranking, leg)


def _by_all(
    hybrid: HybridRetriever, query: VectorStoreQuery, filter: Filter | None
) -> list[ScoredNode]:
    k = query.similarity_top_k if query.hybrid_top_k is None else query.hybrid_top_k
    check_k(k, name="similarity_top_k")
    asked = hybrid.prepare(_text(query))
    if query.query_embedding is not None:
        dense = _vector(query.query_embedding)
        asked = Query(asked.text, replace(asked.representations, dense=dense))
    # LlamaIndex means all nodes by an empty list of ids
    found = hybrid.search_legs(
        asked, k=k, filter=filter, ids=query.node_ids or None, plan=_tuned(hybrid.plan, query)
    )
    return [from_hit(hit) for hit in found.hits]


def _asked(hybrid: HybridRetriever, query: VectorStoreQuery, leg: Mode) -> Query:
    """Return the question with what one leg needs of it."""
    if leg == "dense" and query.query_embedding is not None:
        vector = _vector(query.query_embedding)
        return Query(query.query_str or "", Representations(dense=vector))
    text = _text(query)
    if leg == "bm25":
        return Query(text)
    outputs: tuple[Output, ...] = ("dense",) if leg == "dense" else ("sparse",)
    return Query(text, hybrid.encoder.encode_query(text, outputs=outputs))


def _tuned(plan: Plan, query: VectorStoreQuery) -> Plan:
    """Return the plan with this query's own depths and weights."""
    dense = plan.recall.dense if query.hybrid_top_k is None else query.similarity_top_k
    lexical = plan.recall.lexical if query.sparse_top_k is None else query.sparse_top_k
    weights = _weights(plan, query.alpha)
    return replace(plan, recall=Recall(dense=dense, lexical=lexical), weights=weights)


def _weights(plan: Plan, alpha: float | None) -> HybridWeights:
    if alpha is None:
        return plan.weights
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha expects a number from 0 (terms) to 1 (vectors), got {alpha!r}.")
    if plan.fusion is not None:
        raise InputError(
            "alpha expects a hybrid score, got a retriever that orders by fusion. Give the weights "
            "to its fusion, or make it without one."
        )
    vectors = [plan.weighted.get("dense", 0.0), plan.weighted.get("colbert", 0.0)]
    share = vectors[0] / sum(vectors) if sum(vectors) else 1.0
    return HybridWeights(dense=alpha * share, sparse=1 - alpha, colbert=alpha * (1 - share))


def _vector(embedding: Sequence[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array([embedding], np.float32)  # (1, h)


def _text(query: VectorStoreQuery) -> str:
    if query.query_str is None:
        raise InputError(
            f"mode {query.mode.value!r} expects the question's text, got none. Set query_str."
        )
    return query.query_str
