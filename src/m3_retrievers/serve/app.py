"""The application: routes, key, hosts, time-outs, errors."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import (
    EncoderAnswerError,
    EncoderUnavailableError,
    IndexUnavailableError,
    InputError,
    M3Error,
    MissingHeadError,
    MissingOutputError,
    TextTooLongError,
)
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.serve import embedding, searching, stating
from m3_retrievers.serve.fields import read_json
from m3_retrievers.serve.limits import Limits
from m3_retrievers.serve.rendering import json_response, problem
from m3_retrievers.serve.state import Served, State

Work: TypeAlias = Callable[[State, Mapping[str, Any]], Awaitable[Response]]

_POST: dict[str, Work] = {
    "/v1/embeddings": embedding.openai_embeddings,
    "/embed": embedding.embed,
    "/embed_sparse": embedding.embed_sparse,
    "/embed_all": embedding.embed_all,
    "/encode": embedding.encode,
    "/view": embedding.view,
    "/terms": embedding.terms,
    "/search": searching.search,
    "/explain": searching.explain,
    "/rerank": searching.rerank,
}
_GET = ("/health", *stating.GET)
# Whoever may not ask this server may still see that it is alive, and the page that asks for the
# key, and no more than that.
_OPEN = ("/health", "/")
# The first that fits; an error that is not listed is nobody's business outside.
_STATUS: tuple[tuple[type[M3Error], int], ...] = (
    (TextTooLongError, 413),
    (InputError, 400),
    (MissingHeadError, 400),
    (MissingOutputError, 400),
    (EncoderUnavailableError, 503),
    (IndexUnavailableError, 503),
    (EncoderAnswerError, 502),
)


def create_app(
    encoder: Encoder,
    retriever: HybridRetriever | Sequence[Served] | None = None,
    *,
    limits: Limits | None = None,
    api_key: str | None = None,
    hosts: tuple[str, ...] | None = None,
) -> Starlette:
    """Return an ASGI application that serves an encoder, and an index if there is one.

    The models are loaded when the server starts. retriever: over the index; several, each with a
    name, are asked by ``"index"``, and compared on the page at ``/``. api_key: what every
    request but those for the page and ``/health`` has to bring as a bearer token. hosts: names a
    request may address the server by; None is any. A page in a browser could otherwise reach a
    server that listens on this machine alone.

    Raises InputError for an empty key and for two indexes of one name.
    """
    if api_key is not None and not api_key:
        raise InputError("api_key expects a key, got an empty one. Leave it out for none.")
    state = State(encoder, _named(retriever), limits or Limits())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await state.start()
        try:
            yield
        finally:
            await state.stop()

    app = Starlette(
        routes=[
            *(Route(path, _posted(state, work), methods=["POST"]) for path, work in _POST.items()),
            *(Route(path, said(state)) for path, said in stating.GET.items()),
            Route("/health", _health(state, api_key)),
        ],
        exception_handlers={
            HTTPException: _http_problem,
            ClientDisconnect: _nobody,
            M3Error: _our_problem(state),
            Exception: _unknown_problem,
        },
        lifespan=lifespan,
    )
    app.add_middleware(Gate, state=state, api_key=api_key, hosts=hosts)
    app.state.m3 = state
    return app


def _named(given: HybridRetriever | Sequence[Served] | None) -> Sequence[Served]:
    """Return the indexes by name; a retriever alone is called "index"."""
    if given is None:
        return []
    if isinstance(given, HybridRetriever):
        return [Served("index", given)]
    names = [one.name for one in given]
    if len(set(names)) != len(names):
        raise InputError(f"expected another name for each index, got {names}. Name each once.")
    return given


class Gate:
    """Counts every request, and turns away those without the key or for another host."""

    def __init__(
        self, app: ASGIApp, *, state: State, api_key: str | None, hosts: tuple[str, ...] | None
    ) -> None:
        self._app, self._state, self._hosts = app, state, hosts
        self._key = api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        path = scope["path"]
        turned_away = self._turned_away(Request(scope), path)
        try:
            await (turned_away or self._app)(scope, receive, noting)
        finally:
            known = path if path in _POST or path in _GET else "other"
            self._state.metrics.request(known, status, time.perf_counter() - start)

    def _turned_away(self, request: Request, path: str) -> Response | None:
        host = request.headers.get("host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self._hosts is not None and name not in self._hosts:
            return problem(path, 421, f"expected a host of {list(self._hosts)}, got {name!r:.60}.")
        if path in _OPEN or self._key is None or has_key(request, self._key):
            return None
        return problem(
            path,
            401,
            "expected the server's key, got another or none. Send it as 'Authorization: Bearer …'.",
            {"www-authenticate": "Bearer"},
        )


def has_key(request: Request, key: str) -> bool:
    """Whether a request brings the key; takes the same time however much of it is right."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode())


def _posted(state: State, work: Work) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint that reads JSON, and works as long as somebody waits for it."""

    async def endpoint(request: Request) -> Response:
        body = await _read_in_time(request, state.limits)
        answering = asyncio.ensure_future(work(state, body))
        leaving = asyncio.ensure_future(_left(request))
        try:
            done, _ = await asyncio.wait(
                {answering, leaving},
                timeout=state.limits.timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answering in done:
                return answering.result()
        finally:
            leaving.cancel()
            answering.cancel()
            await asyncio.wait({answering, leaving})  # its place in the queue is free by then
            if not answering.cancelled():
                answering.exception()  # nobody waits for it, and asyncio would complain
        if leaving in done:
            state.metrics.counts["cancelled_total"] += 1
            return Response(status_code=499)  # to nobody
        raise HTTPException(
            504,
            f"expected to answer within {state.limits.timeout:g} s, and could not. Send less at "
            "once, or ask again later.",
        )

    return endpoint


async def _read_in_time(request: Request, limits: Limits) -> dict[str, Any]:
    try:
        async with asyncio.timeout(limits.timeout):
            return await read_json(request, limits)
    except TimeoutError as error:
        raise HTTPException(
            408, f"expected a whole request within {limits.timeout:g} s, got a part of one."
        ) from error


async def _left(request: Request) -> None:
    """Return when the client has gone away."""
    while True:
        if (await request.receive())["type"] == "http.disconnect":
            return


def _health(state: State, api_key: str | None) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if api_key is not None and not has_key(request, api_key):
            return await json_response({"status": "ok"})
        found = dict(state.about)
        if state.retriever is not None:
            found["index"] = {**found["index"], "documents": len(state.retriever)}
        return await json_response(found)

    return endpoint


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return problem(request.url.path, error.status_code, str(error.detail), headers)


def _our_problem(state: State) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
        if status == 500:
            return await _unknown_problem(request, error)
        again = {"retry-after": str(state.batcher.patience())} if status == 503 else {}
        return problem(request.url.path, status, str(error), again)

    return handler


async def _nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # the client left before its request was whole


async def _unknown_problem(request: Request, _: Exception) -> Response:
    message = "expected to answer, and failed; the server's own output says why."
    return problem(request.url.path, 500, message)
