"""The routes over an index, and reranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from m3_retrievers.errors import InputError
from m3_retrievers.explain.explaining import explain as explained
from m3_retrievers.retrieval.reranking import reranked, reranking_outputs
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.serve.fields import flag_of, integer_of, text_of, texts_of, weights_of
from m3_retrievers.serve.rendering import json_response
from m3_retrievers.serve.state import State
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import encoded_modes

_MOST_HITS = 1_000


async def search(state: State, body: Mapping[str, Any]) -> Response:
    """``POST /search {"query", "k", "filter", "weights"}``: hits with every score and share."""
    retriever = _retriever(state)
    text = text_of(body, "query", state.limits)
    k = integer_of(body, "k", default=10, most=_MOST_HITS)
    filter = body.get("filter")
    if filter is not None and not isinstance(filter, dict):
        raise InputError(f"filter expects an object, got {type(filter).__name__}.")
    weights = weights_of(body)
    plan = retriever.plan if weights is None else replace(retriever.plan, weights=weights)
    outputs = encoded_modes(plan.modes) or ("dense",)
    encoded = await state.encode([text], query=True, outputs=outputs)
    query = Query(text, encoded.found)
    found = await in_thread(retriever.search_legs, query, k=k, filter=filter, plan=plan)
    return await json_response({"query": text, "hits": [asdict(hit) for hit in found.hits]})


async def explain(state: State, body: Mapping[str, Any]) -> Response:
    """``POST /explain {"query", "id"}``: why a document of the index matches a query."""
    retriever = _retriever(state)
    text = text_of(body, "query", state.limits)
    id = text_of(body, "id", state.limits)
    found = await state.batcher.call(partial(explained, text, id, retriever=retriever))
    return await json_response(found.to_dict())


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


def _retriever(state: State) -> HybridRetriever:
    if state.retriever is None:
        raise HTTPException(
            404, "expected a server with an index, got one of a model alone. Start it with one."
        )
    return state.retriever
