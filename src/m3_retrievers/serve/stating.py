"""What a server says when it is asked nothing: its page, its indexes, its model, its figures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from m3_retrievers.display.playground import page as playground
from m3_retrievers.display.playground.data import about
from m3_retrievers.serve.metrics import MEDIA_TYPE
from m3_retrievers.serve.rendering import json_response
from m3_retrievers.serve.state import State

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

_HEADERS = {
    "content-security-policy": f"{playground.policy(served=True)}; frame-ancestors 'none'",
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def page(_: State) -> Endpoint:
    """``GET /``: the playground, which asks the other routes."""

    async def endpoint(_: Request) -> Response:
        return Response(playground.page(), headers=_HEADERS, media_type="text/html")

    return endpoint


def indexes(state: State) -> Endpoint:
    """``GET /indexes``: every index with its legs, weights and depths; the first is the default."""

    async def endpoint(_: Request) -> Response:
        found = [about(one.name, one.retriever, code=one.code) for one in state.indexes]
        return await json_response({"indexes": found})

    return endpoint


def metrics(state: State) -> Endpoint:
    """``GET /metrics``: the server's figures, in Prometheus's text format."""

    async def endpoint(_: Request) -> Response:
        return Response(state.metrics.rendered(), media_type=MEDIA_TYPE)

    return endpoint


def models(state: State) -> Endpoint:
    """``GET /v1/models``: the one model, as OpenAI's clients expect it."""

    async def endpoint(_: Request) -> Response:
        entry = {"id": state.encoder.name, "object": "model", "owned_by": "m3-retrievers"}
        return await json_response({"object": "list", "data": [entry]})

    return endpoint


def info(state: State) -> Endpoint:
    """``GET /info``: what text-embeddings-inference's clients ask about a server."""

    async def endpoint(_: Request) -> Response:
        return await json_response(state.info)

    return endpoint


GET: dict[str, Callable[[State], Endpoint]] = {
    "/": page,
    "/indexes": indexes,
    "/metrics": metrics,
    "/v1/models": models,
    "/info": info,
}
