"""Requests to a server and their answers: bounded, repeated where that helps, never for ever."""

from __future__ import annotations

import json
import random
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from m3_retrievers.encoder.lazy import Lazy
from m3_retrievers.encoder.remote.connection import Connection, shown
from m3_retrievers.encoder.remote.exchange import Answer, Request
from m3_retrievers.errors import EncoderAnswerError, EncoderUnavailableError

# The server says that it would answer later, or a proxy that its server was away for a moment.
_BUSY = (429, 502, 503)
_FIRST_WAIT, _LONGEST_WAIT, _PATIENCE = 0.25, 8.0, 30.0
_CONNECT_SECONDS = 10.0
# An hour of talk in BGE-M3's hidden states, as JSON, is less.
_LARGEST_ANSWER = 1 << 29

_ADVICE = {
    401: "Give the server's key: Connection(api_key=…).",
    403: "Give a key that may do this: Connection(api_key=…).",
    404: "Check the address, and that the server is of this kind and serves this task.",
    413: "Send fewer tokens a request: Connection(batch_tokens=…), or shorten the text.",
}


class _Client:
    """An httpx client that is closed once it was let go of and its last request is over.

    Closed in the middle of one, it would leave that request's connection open.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._requests, self._released = 0, False

    @contextmanager
    def use(self) -> Iterator[httpx.Client]:
        with self._lock:
            self._requests += 1
        try:
            yield self._client
        finally:
            self._end(requests=-1, released=False)

    def release(self) -> None:
        self._end(requests=0, released=True)

    def _end(self, *, requests: int, released: bool) -> None:
        with self._lock:
            self._requests += requests
            self._released |= released
            over = self._released and not self._requests
        if over:
            self._client.close()


class Transport:
    """Sends requests to one server; safe between threads.

    What it sends only computes, so that sending it twice does no harm.
    """

    def __init__(self, url: str, connection: Connection) -> None:
        self.url = url
        self.server = shown(url)
        self.connection = connection
        self._client = Lazy(self._open)
        self._closing: weakref.finalize[..., Any] | None = None

    def get(self, path: str) -> Answer:
        """Return the answer to a GET."""
        return self._send(Request(path, method="GET"), threading.Event())

    def post(self, path: str, payload: Any, *, about: str) -> Answer:
        """Return the answer to a POST of JSON."""
        return self._send(Request(path, payload, about), threading.Event())

    def post_all(self, requests: Iterable[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield the place and the answer of each request, as they come, several under way.

        requests: read no further than what is under way. The first error ends all.
        """
        numbered = enumerate(requests)
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.connection.in_flight, thread_name_prefix="m3-remote")
        under_way: dict[Future[Answer], int] = {}
        try:
            while True:
                for place, request in numbered:
                    under_way[pool.submit(self._send, request, stop)] = place
                    if len(under_way) == self.connection.in_flight:
                        break
                if not under_way:
                    return
                for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                    yield under_way.pop(done), done.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Close the connections, those at work after their answer; a later request opens others."""
        closing, self._closing = self._closing, None
        self._client = Lazy(self._open)
        if closing is not None:
            closing()

    def renew_after_fork(self) -> None:
        """Leave the parent's connections to it."""
        if self._closing is not None:
            self._closing.detach()
        self._client = Lazy(self._open)

    # Inside

    def _open(self) -> _Client:
        key, limit = self.connection.api_key, self.connection.timeout
        client = _Client(
            httpx.Client(
                headers={} if key is None else {"authorization": f"Bearer {key}"},
                timeout=httpx.Timeout(limit, connect=min(limit, _CONNECT_SECONDS)),
                limits=httpx.Limits(max_keepalive_connections=self.connection.in_flight),
            )
        )
        self._closing = weakref.finalize(self, client.release)
        return client

    def _send(self, request: Request, stop: threading.Event) -> Answer:
        last = ""
        for attempt in range(self.connection.retries + 1):
            try:
                status, headers, content = self._once(request)
            except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
                # the server is at work: the same again would only double it
                raise self._too_slow(request) from error
            except httpx.DecodingError as error:
                raise self._refused(
                    request, f"an answer that cannot be unpacked ({error})"
                ) from error
            except httpx.TransportError as error:
                last, asked = f"{type(error).__name__}: {error}", None
            else:
                if status == 200:
                    return Answer(content, self.server + request.path, request.about)
                last, asked = f"status {status}{_reason(content)}", headers.get("retry-after")
                if status >= 500 and status not in _BUSY:
                    break
                if status not in _BUSY:
                    raise self._refused(request, last, _ADVICE.get(status, ""))
            delay = _delay(attempt, asked)
            if delay > _PATIENCE or attempt == self.connection.retries or stop.wait(delay):
                break
        raise EncoderUnavailableError(
            f"{self.server}{request.path} is expected to answer{_of(request)}, and did not: {last} "
            f"(sent {attempt + 1} times). Start it, check the address, or wait until it has time."
        )

    def _once(self, request: Request) -> tuple[int, httpx.Headers, bytes]:
        body = None if request.payload is None else json.dumps(request.payload).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        deadline = time.monotonic() + self.connection.timeout
        url = self.url + request.path
        parts, size = [], 0
        with (
            self._client.get().use() as client,
            client.stream(request.method, url, content=body, headers=headers) as response,
        ):
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > _LARGEST_ANSWER:
                    raise self._refused(request, f"more than {_LARGEST_ANSWER:,} bytes")
                if time.monotonic() > deadline:
                    raise self._too_slow(request)
            return response.status_code, response.headers, b"".join(parts)

    def _too_slow(self, request: Request) -> EncoderUnavailableError:
        return EncoderUnavailableError(
            f"{self.server}{request.path} is expected to answer{_of(request)} within "
            f"{self.connection.timeout:g} s, and did not. Allow it more with "
            "Connection(timeout=…), or send less at once with Connection(batch_tokens=…)."
        )

    def _refused(self, request: Request, what: str, advice: str = "") -> EncoderAnswerError:
        return EncoderAnswerError(
            f"{self.server}{request.path} is expected to encode{_of(request)}, got {what}. "
            f"{advice or 'Check the server and its model.'}"
        )


def _of(request: Request) -> str:
    return f" {request.about}" if request.about else ""


def _reason(content: bytes) -> str:
    """Return what a server gave as its reason, cut and without what steers a terminal."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = content[:200].decode("utf-8", "replace")
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return f" ({str(found)[:200]!r})" if found else ""


def _delay(attempt: int, asked: str | None) -> float:
    """Return how long to wait before the next try, in seconds."""
    if asked is not None:
        with suppress(ValueError):
            return max(0.0, float(asked))
        with suppress(ValueError):
            return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    # spread, so that clients that were turned away together do not come back together
    pause = _FIRST_WAIT * (1 << min(attempt, 10))
    return min(_LONGEST_WAIT, pause) * random.uniform(0.5, 1.0)
