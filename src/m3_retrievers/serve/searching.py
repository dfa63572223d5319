"""The routes over an index, and reranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from m3_retrievers.display.playground.data import candidates, reading, scoring_plan
from m3_retrievers.errors import InputError
from m3_retrievers.explain.explaining import explain as explained
from m3_retrievers.retrieval.reranking import reranked, reranking_outputs
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.serve.fields import (
    choice_of,
    flag_of,
    integer_of,
    recall_of,
    text_of,
    texts_of,
    weights_of,
)
from m3_retrievers.serve.rendering import json_response
from m3_retrievers.serve.state import State
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import Plan, encoded_modes

_MOST_HITS = 1_000
# Of a leg: every candidate is scored in every mode, ColBERT the dearest of them.
_DEEPEST = 1_000


async def search(state: State, body: Mapping[str, Any]) -> Response:
    """``POST /search {"query", "k", "filter", "weights", "recall", "index"}``.

    Hits with every score and share; with ``"candidates": true`` instead all that the legs
    recalled, with each mode's part of the score before it is weighed.
    """
    asked, retriever = _asked(state, body)
    text = text_of(body, "query", state.limits)
    k = integer_of(body, "k", default=10, most=_MOST_HITS)
    filter = body.get("filter")
    if filter is not None and not isinstance(filter, dict):
        raise InputError(f"filter expects an object, got {type(filter).__name__}.")
    weights = weights_of(body)
    recall = recall_of(body, retriever.recall, most=_DEEPEST)
    if flag_of(body, "candidates", default=False):
        plan = scoring_plan(retriever, recall)
        query = await _encoded(asked, text, plan)
        every = await in_thread(candidates, retriever, query, plan, filter=filter)
        found = {"query": text, "documents": len(retriever), "candidates": every}
        return await json_response(found)
    plan = replace(retriever.plan, weights=weights or retriever.weights, recall=recall)
    query = await _encoded(asked, text, plan)
    result = await in_thread(retriever.search_legs, query, k=k, filter=filter, plan=plan)
    return await json_response({"query": text, "hits": [asdict(hit) for hit in result.hits]})


async def explain(state: State, body: Mapping[str, Any]) -> Response:
    """``POST /explain {"query", "id", "index"}``: why a document of the index matches a query.

    ``"form": "page"`` gives what a page draws: both texts in pieces, and the whole alignment.
    """
    asked, retriever = _asked(state, body)
    text = text_of(body, "query", state.limits)
    id = text_of(body, "id", state.limits)
    form = choice_of(body, "form", ("data", "page"))
    found = await asked.batcher.call(partial(explained, text, id, retriever=retriever))
    return await json_response(reading(found) if form == "page" else found.to_dict())


async def rerank(state: State, body: Mapping[str, Any]) -> Response:
    """``POST /rerank {"query", "texts"}``: ``[{"index", "score", "scores"}]``, best first."""
    text = text_of(body, "query", state.limits)
    texts = texts_of(body, "texts", state.limits)
    with_text = flag_of(body, "return_text", default=False)
    weights = weights_of(body) or state.encoder.default_weights
    outputs = reranking_outputs(state.encoder, weights)
    asked = await state.encode([text], query=True, outputs=outputs)
    given = await state.encode(texts, query=False, outputs=outputs)
    places = await in_thread(reranked, asked.found, given.found, texts, weights=weights)
    return await json_response(
        [
            {"index": one.index, "score": one.score, "scores": dict(one.scores)}
            | ({"text": texts[one.index]} if with_text else {})
            for one in places
        ]
    )


async def _encoded(state: State, text: str, plan: Plan) -> Query:
    outputs = encoded_modes(plan.modes) or ("dense",)
    encoded = await state.encode([text], query=True, outputs=outputs)
    return Query(text, encoded.found)


def _asked(state: State, body: Mapping[str, Any]) -> tuple[State, HybridRetriever]:
    """Return what serves the index that a request names."""
    name = body.get("index")
    if name is not None and not isinstance(name, str):
        raise InputError(f"index expects a name, got {type(name).__name__}.")
    if state.retriever is None:
        raise HTTPException(
            404, "expected a server with an index, got one of a model alone. Start it with one."
        )
    asked = state.of(name)
    assert asked.retriever is not None
    return asked, asked.retriever
