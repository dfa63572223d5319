"""One VectorStoreQuery answered by a HybridRetriever."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from m3_retrievers.checks import check_k
from m3_retrievers.errors import InputError
from m3_retrievers.frameworks.diversity import FETCHED, TRADE_OFF, mmr
from m3_retrievers.frameworks.vectors import as_vector
from m3_retrievers.index.base import Filter
from m3_retrievers.llama_index.nodes import to_node
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import HybridWeights, Mode, Plan, Recall
from m3_retrievers.types.representations import Output, Representations

_LEG: dict[VectorStoreQueryMode, Mode] = {
    VectorStoreQueryMode.DEFAULT: "dense",
    VectorStoreQueryMode.SPARSE: "sparse",
    VectorStoreQueryMode.TEXT_SEARCH: "bm25",
}
# a node as it was stored, and the score it is ordered by
_Scored: TypeAlias = tuple[BaseNode, float]


def answer(
    hybrid: HybridRetriever,
    query: VectorStoreQuery,
    *,
    filter: Filter | None,
    mmr_threshold: float | None = None,
    mmr_prefetch_k: int | None = None,
) -> VectorStoreQueryResult:
    """Return the best nodes in the query's mode, with their scores, best first.

    Raises InputError for a mode that this package or this index does not have, for
    ``alpha`` or an MMR threshold outside 0..1, and for a question without text where text is
    needed.
    """
    query = replace(query, mode=_mode(query.mode))
    if query.mode is VectorStoreQueryMode.HYBRID:
        found = _by_all(hybrid, query, filter)
    elif query.mode is VectorStoreQueryMode.MMR:
        threshold = query.mmr_threshold if mmr_threshold is None else mmr_threshold
        found = _diverse(hybrid, query, filter, threshold, mmr_prefetch_k)
    elif query.mode in _LEG:
        found = _by_one(hybrid, query, filter)
    else:
        raise _unknown(query.mode)
    return VectorStoreQueryResult(
        nodes=[node for node, _ in found],
        similarities=[score for _, score in found],
        ids=[node.node_id for node, _ in found],
    )


def _mode(given: VectorStoreQueryMode | str) -> VectorStoreQueryMode:
    """Return a mode, which VectorStoreQuery takes by its name too."""
    try:
        return VectorStoreQueryMode(given)
    except ValueError:
        raise _unknown(given) from None


def _unknown(mode: VectorStoreQueryMode | str) -> InputError:
    others = (VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.MMR)
    known = [mode.value for mode in (*_LEG, *others)]
    given = mode.value if isinstance(mode, VectorStoreQueryMode) else mode
    return InputError(f"mode expects one of {known}, got {given!r:.60}.")


def _by_one(
    hybrid: HybridRetriever, query: VectorStoreQuery, filter: Filter | None
) -> list[_Scored]:
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
    asked = _asked(hybrid, query, leg)
    ranking = hybrid.index.recall(asked, leg, k=k, filter=filter, ids=_ids(query))
    score_of = dict(zip(ranking.ids, ranking.scores.tolist(), strict=True))
    return [(to_node(one), score_of[one.id]) for one in hybrid.get(ranking.ids)]


def _by_all(
    hybrid: HybridRetriever, query: VectorStoreQuery, filter: Filter | None
) -> list[_Scored]:
    k = query.similarity_top_k if query.hybrid_top_k is None else query.hybrid_top_k
    check_k(k, name="similarity_top_k")
    asked, plan = _question(hybrid, query), _tuned(hybrid.plan, query)
    hits = hybrid.search_legs(asked, k=k, filter=filter, ids=_ids(query), plan=plan).hits
    return [(to_node(hit), hit.score) for hit in hits]


def _diverse(
    hybrid: HybridRetriever,
    query: VectorStoreQuery,
    filter: Filter | None,
    threshold: float | None,
    fetched: int | None,
) -> list[_Scored]:
    """Return the nodes of the best hybrid hits that are near the question and unlike each other.

    Nearness is the dense one; the scores are the hybrid ones.
    """
    k = query.similarity_top_k
    check_k(k, name="similarity_top_k")
    check_k(FETCHED if fetched is None else fetched, name="mmr_prefetch_k")
    asked = _question(hybrid, query)
    hits = hybrid.search_legs(
        asked, k=max(k, fetched or FETCHED), filter=filter, ids=_ids(query)
    ).hits
    stored = hybrid.vectors([hit.id for hit in hits], outputs=("dense",)).require("dense")
    dense = asked.representations.dense  # None where dense counts for nothing
    if dense is None:
        dense = hybrid.encoder.encode_query(asked.text, outputs=("dense",)).require("dense")
    chosen = mmr(dense[0], stored, k=k, trade_off=TRADE_OFF if threshold is None else threshold)
    return [(to_node(hits[row]), hits[row].score) for row in chosen]


def _question(hybrid: HybridRetriever, query: VectorStoreQuery) -> Query:
    """Return the question with all that a hybrid search needs of it."""
    asked = hybrid.prepare(_text(query))
    if query.query_embedding is None:
        return asked
    dense = as_vector(query.query_embedding)
    return Query(asked.text, replace(asked.representations, dense=dense))


def _ids(query: VectorStoreQuery) -> list[str] | None:
    """Return the ids a query is restricted to; LlamaIndex means all nodes by an empty list."""
    return query.node_ids or None


def _asked(hybrid: HybridRetriever, query: VectorStoreQuery, leg: Mode) -> Query:
    """Return the question with what one leg needs of it."""
    if leg == "dense" and query.query_embedding is not None:
        vector = as_vector(query.query_embedding)
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


def _text(query: VectorStoreQuery) -> str:
    if query.query_str is None:
        raise InputError(
            f"mode {query.mode.value!r} expects the question's text, got none. Set query_str."
        )
    return query.query_str
