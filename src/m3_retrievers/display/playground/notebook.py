"""The page with questions answered in advance, which needs no server: for notebooks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from m3_retrievers.checks import check_k, check_texts
from m3_retrievers.display.playground.data import about, candidates, reading, scoring_plan
from m3_retrievers.display.playground.page import page
from m3_retrievers.errors import InputError
from m3_retrievers.explain.explaining import explain
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Query
from m3_retrievers.types.page import Page
from m3_retrievers.types.plan import HybridWeights, encoded_modes

# Of a page that was given no question, how many it makes up, and words of each.
_MADE_UP, _WORDS = 3, 8


def playground(
    queries: str | Sequence[str] | None,
    retrievers: Mapping[str, HybridRetriever],
    *,
    k: int,
) -> Page:
    """Return the page with these queries answered by each retriever; see ``HybridRetriever``."""
    check_k(k)
    for retriever in retrievers.values():
        if not isinstance(retriever, HybridRetriever):
            raise InputError(
                f"others expects HybridRetrievers by name, got {type(retriever).__name__}. Of a "
                "framework's retriever take .hybrid."
            )
    first = next(iter(retrievers.values()))
    asked = [queries] if isinstance(queries, str) else queries
    texts = check_texts(_made_up(first) if asked is None else asked)
    indexes = [about(name, retriever) for name, retriever in retrievers.items()]
    answers = {
        text: {name: _answer(text, one, k) for name, one in retrievers.items()} for text in texts
    }
    return Page("Playground", page({"indexes": indexes, "answers": answers}))


def _answer(text: str, retriever: HybridRetriever, k: int) -> dict[str, Any]:
    """Return a query's candidates, and readings of those that some weights may bring to the top."""
    plan = scoring_plan(retriever)
    outputs = encoded_modes(plan.modes) or ("dense",)
    query = Query(text, retriever.encoder.encode_query(text, outputs=outputs))
    found = candidates(retriever, query, plan)
    return {
        "documents": len(retriever),
        "candidates": found,
        "readings": {
            id: reading(explain(text, id, retriever=retriever))
            for id in _likely(found, retriever.weights, k)
        },
    }


def _likely(found: Sequence[Mapping[str, Any]], weights: HybridWeights, k: int) -> list[str]:
    """Return the ids of the best k by the weights, and by each mode alone."""
    modes = dict.fromkeys(mode for one in found for mode in one["parts"])
    own = {mode: weights.of(mode) for mode in modes}
    alone = [{mode: 1.0} for mode in modes]
    ids: dict[str, None] = {}
    for by in (own, *alone):
        scores = [math.fsum(by.get(m, 0.0) * v for m, v in one["parts"].items()) for one in found]
        best = sorted(range(len(found)), key=lambda at: -scores[at])[:k]
        ids |= dict.fromkeys(found[at]["id"] for at in best)
    return list(ids)


def _made_up(retriever: HybridRetriever) -> list[str]:
    """Return the first words of some documents, spread over the index."""
    ids = retriever.index.ids
    chosen = dict.fromkeys(ids[place * len(ids) // _MADE_UP] for place in range(_MADE_UP) if ids)
    texts = [record.text for record in retriever.get(list(chosen))]
    return list(dict.fromkeys(" ".join(text.split()[:_WORDS]) for text in texts if text.split()))
