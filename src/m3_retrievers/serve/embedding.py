"""The routes that encode: OpenAI's, text-embeddings-inference's, and our own."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from m3_retrievers.encoder.remote.wire import MEDIA_TYPE, WIRE_TYPES, packed
from m3_retrievers.errors import InputError, TruncationWarning
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.serve.fields import (
    choice_of,
    cut_dense,
    flag_of,
    is_query,
    outputs_of,
    text_of,
    texts_of,
)
from m3_retrievers.serve.rendering import json_response
from m3_retrievers.serve.state import Encoded, State


async def openai_embeddings(state: State, body: Mapping[str, Any]) -> Response:
    """``POST /v1/embeddings``: dense vectors, as OpenAI's clients expect them.

    ``input_type: "query"`` asks for queries, which is no field of OpenAI's.
    """
    texts = texts_of(body, "input", state.limits)
    form = choice_of(body, "encoding_format", ("float", "base64"))
    encoded = await state.encode(texts, query=is_query(body, "input_type"), outputs=("dense",))
    rows = cut_dense(body, encoded.found)
    # little-endian float32, as OpenAI's own server sends it
    vectors = (
        [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
        if form == "base64"
        else rows.tolist()
    )
    total = sum(encoded.tokens or ())
    return await json_response(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": place, "embedding": vector}
                for place, vector in enumerate(vectors)
            ],
            "model": state.encoder.name,
            "usage": {"prompt_tokens": total, "total_tokens": total},
        }
    )


async def embed(state: State, body: Mapping[str, Any]) -> Response:
    """``POST /embed``: dense vectors, as text-embeddings-inference's clients expect them."""
    if not flag_of(body, "normalize", default=True):
        raise InputError("normalize expects true, got false: this model's vectors have length 1.")
    encoded = await _inputs(state, body, "dense")
    return await json_response(cut_dense(body, encoded.found).tolist())


async def embed_sparse(state: State, body: Mapping[str, Any]) -> Response:
    """``POST /embed_sparse``: term weights, ``[[{"index", "value"}]]``."""
    encoded = await _inputs(state, body, "sparse")
    rows = zip(*encoded.found.to_lists(), strict=True)
    return await json_response(
        [
            [{"index": id, "value": weight} for id, weight in zip(ids, weights, strict=True)]
            for ids, weights in rows
        ]
    )


async def embed_all(state: State, body: Mapping[str, Any]) -> Response:
    """``POST /embed_all``: the last hidden states of every token, special ones included."""
    given = body.get("inputs")
    if isinstance(given, list) and given and all(isinstance(one, int) for one in given):
        given = [given]
    if isinstance(given, list) and any(isinstance(one, list) for one in given):
        if len(given) > state.limits.max_texts:
            raise HTTPException(
                413, f"inputs expects at most {state.limits.max_texts} texts, got {len(given)}."
            )
        if not all(isinstance(one, list | str) for one in given):
            raise InputError("inputs expects strings or lists of token ids, got others among them.")
        texts: list[Any] = given
    else:
        texts = list(texts_of(body, "inputs", state.limits))
    return await json_response(await state.batcher.call(partial(state.hidden_states, texts)))


async def encode(state: State, body: Mapping[str, Any]) -> Response:
    """``POST /encode``: all outputs at once, as safetensors; what ``HttpEncoder`` reads."""
    texts = texts_of(body, "texts", state.limits, least=0)
    dtype = choice_of(body, "dtype", WIRE_TYPES)
    encoded = await state.encode(texts, query=is_query(body, "role"), outputs=outputs_of(body))
    about = {
        "texts": len(texts),
        "vocabulary_size": state.about["model"]["vocabulary_size"],
        "fingerprint": state.about["model"]["fingerprint"],
        "warnings": [[kind.__name__, message] for kind, message in encoded.warned],
    }
    content = await in_thread(packed, encoded.found, about, dtype=dtype)  # type: ignore[arg-type]
    return Response(content, media_type=MEDIA_TYPE)


async def view(state: State, body: Mapping[str, Any]) -> Response:
    """``POST /view``: a text's tokens as the encoder reads them, for explanations elsewhere."""
    text = text_of(body, "text", state.limits)
    outputs = outputs_of(
        {"output": None if body.get("output") is None else [body["output"]]}, "output"
    )
    call = partial(
        state.encoder.view,
        text,
        query=is_query(body, "role"),
        output=None if outputs is None else outputs[0],
    )
    seen = await state.batcher.call(call)
    return await json_response(
        {
            "tokens": [[t.id, t.surface, t.start, t.end, t.weight] for t in seen.tokens],
            "unseen": seen.unseen,
            "vector_tokens": list(seen.vector_tokens),
            "vector_labels": list(seen.vector_labels),
        }
    )


async def terms(state: State, body: Mapping[str, Any]) -> Response:
    """``POST /terms``: the vocabulary's spelling of sparse columns."""
    ids = body.get("ids")
    size = state.about["model"]["vocabulary_size"]
    known = isinstance(ids, list) and all(type(id) is int and 0 <= id < size for id in ids)
    if not known or not isinstance(ids, list):
        raise InputError(f"ids expects a list of integers from 0 to {size - 1}, got others.")
    return await json_response({"terms": await in_thread(state.encoder.terms, ids)})


async def _inputs(state: State, body: Mapping[str, Any], output: Any) -> Encoded:
    texts = texts_of(body, "inputs", state.limits)
    query = is_query(body, "prompt_name")
    encoded = await state.encode(texts, query=query, outputs=(output,))
    if not flag_of(body, "truncate", default=True):
        cut = [message for kind, message in encoded.warned if kind is TruncationWarning]
        if cut:
            raise HTTPException(413, f"truncate expects texts that fit where false. {cut[0]}")
    return encoded
