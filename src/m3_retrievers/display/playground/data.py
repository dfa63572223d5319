"""What the page draws, as JSON values: an index, a query's candidates, why one of them matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from m3_retrievers.display.heat_map import best_stretch
from m3_retrievers.display.highlight import (
    Segment,
    document_segments,
    excerpt,
    query_segments,
    stretches,
)
from m3_retrievers.display.markup import shortened
from m3_retrievers.explain.explanation import Alignment, Explanation, TermShare
from m3_retrievers.explain.words import spelled
from m3_retrievers.index.base import Filter
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import HybridWeights, Plan, Recall

# Candidates of a query at most; their text is cut, for the page shows its beginning.
MOST_CANDIDATES = 1_000
_TEXT_SHOWN = 480
_TERMS_SHOWN = 12
# Document tokens in a heat map; wider than a screen, so that it scrolls beside its own labels.
_COLUMNS = 64


def about(name: str, retriever: HybridRetriever, *, code: str = "") -> dict[str, Any]:
    """Return what the page has to know of an index.

    weighted: the modes that a weight can be given. code: Python that makes ``retriever``, and
    imports HybridWeights and Recall.
    """
    plan = retriever.plan
    return {
        "name": name,
        "code": code,
        "model": retriever.encoder.name,
        "outputs": list(retriever.encoder.outputs),
        "documents": len(retriever),
        "legs": list(plan.legs),
        "weighted": list(scoring_plan(retriever).weighted),
        "weights": asdict(plan.weights),
        "recall": asdict(plan.recall),
        "fused": plan.fusion is not None,
    }


def scoring_plan(retriever: HybridRetriever, recall: Recall | None = None) -> Plan:
    """Return the retriever's plan with weight 1 for each mode, and the hybrid score for order.

    So a hit's contributions are what any other weights are multiplied with. A mode that neither
    the plan scores nor the index keeps stays out: every candidate would have to be encoded.
    """
    plan = retriever.plan
    cheap = {*plan.modes, *retriever.index.modes}
    ones = HybridWeights(
        dense=float("dense" in cheap), sparse=1.0, colbert=float("colbert" in cheap)
    )
    return replace(plan, recall=recall or plan.recall, weights=ones, fusion=None)


def candidates(
    retriever: HybridRetriever, query: Query, plan: Plan, *, filter: Filter | None = None
) -> list[dict[str, Any]]:
    """Return every candidate of a query, in order of insertion, which breaks ties.

    plan: of ``scoring_plan``. scores: each mode's own. parts: what a weight is multiplied with.
    places: the candidate's place in each leg that recalled it, where the engine says so.
    """
    found = retriever.search_legs(query, k=MOST_CANDIDATES, filter=filter, plan=plan)
    places = {
        leg: {id: place for place, id in enumerate(ranking.ids, start=1)}
        for leg, ranking in found.rankings.items()
    }
    hits = {hit.id: hit for hit in found.hits}
    return [
        {
            "id": id,
            "text": shortened(hits[id].text, _TEXT_SHOWN),
            "metadata": dict(hits[id].metadata),
            "scores": {mode: hits[id].scores[mode] for mode in plan.modes},
            "parts": dict(hits[id].contributions),
            "places": {leg: of[id] for leg, of in places.items() if id in of},
        }
        for id in retriever.index.in_order(list(hits))
    ]


def reading(explanation: Explanation) -> dict[str, Any]:
    """Return why a document matched: both texts in pieces, shared terms, the heat map, notes.

    A piece has its text and the strengths of its matches, 0 to 1, or how many characters are
    omitted at its place.
    """
    text, terms = explanation.document.text, explanation.lexical_terms
    alignment = explanation.alignment
    return {
        "id": explanation.hit.id,
        "query": _pieces(explanation.query.text, query_segments(explanation)),
        "document": _pieces(text, document_segments(explanation)),
        "lexical_mode": explanation.lexical_mode,
        "terms": [
            # a bare word boundary has no characters of its own, and is no expansion
            {"term": spelled(one.term), "score": one.score, "expansion": _added(one)}
            for one in terms[:_TERMS_SHOWN]
        ],
        "more_terms": max(0, len(terms) - _TERMS_SHOWN),
        "heat_map": None if alignment is None else _heat_map(explanation, alignment),
        "notes": list(explanation.notes),
    }


def _added(share: TermShare) -> bool:
    return share.expansion and share.term != "▁"


def _pieces(text: str, parts: Sequence[Segment]) -> list[dict[str, Any]]:
    spans = excerpt(text, parts, most=_TEXT_SHOWN)
    return [
        {"omitted": part}
        if isinstance(part, int)
        else {
            "text": text[part.start : part.end],
            "lexical": round(part.lexical, 3),
            "aligned": round(part.aligned, 3),
        }
        for part in stretches(text, parts, spans)
    ]


def _heat_map(explanation: Explanation, alignment: Alignment) -> dict[str, Any]:
    """Return the stretch of the alignment with most in it; best: places in the whole document."""
    first = best_stretch(alignment, _COLUMNS) if alignment.similarities.size else 0
    stop = first + _COLUMNS
    return {
        "score": alignment.score,
        "rows": [spelled(label) for label in explanation.query.vector_labels],
        "columns": [spelled(label) for label in explanation.document.vector_labels[first:stop]],
        "first": first,
        "length": alignment.similarities.shape[1],
        "best": alignment.best.tolist(),
        "similarities": alignment.similarities[:, first:stop].round(3).tolist(),
    }
