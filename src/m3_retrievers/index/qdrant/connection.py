"""A connection to a Qdrant server: time-outs, safe retries, and what fails as our errors.

Every request of this index may be sent twice: it reads, or it writes points under ids that it
chose itself. So a request that the network lost is sent again while its time lasts; one that
the server answered, or did not answer in time, is not.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any
from urllib.parse import urlsplit

from m3_retrievers.checks import require_package
from m3_retrievers.errors import IndexUnavailableError, InputError
from m3_retrievers.index.locking import ForkSafeLock

_FIRST_PAUSE = 0.05
_BUSY = (429, 502, 503)


class Connection:
    """A client of qdrant-client's, asked by the name of its method.

    indexes: whether the engine behind it has payload indices and search parameters: a server
    does, the client's local mode does not.
    """

    def __init__(self, client: Any, *, place: str, own: bool) -> None:
        self._client, self._own, self._closed = client, own, False
        self.place = place
        self.indexes = _is_remote(client)
        # the local mode reads its arrays while another thread grows them
        self._turn = nullcontext() if self.indexes else ForkSafeLock()

    @classmethod
    def to(cls, url: str, *, api_key: str | None, timeout: float) -> Connection:
        """Return a connection to a server; nothing is sent yet."""
        require_package(
            "qdrant-client", module="qdrant_client", extra="qdrant", purpose="QdrantIndex(url)"
        )
        from qdrant_client import QdrantClient

        client = QdrantClient(
            url=url, api_key=api_key, timeout=max(1, round(timeout)), check_compatibility=False
        )
        patient = cls(client, place=shown_place(url), own=True)
        client.http.client.add_middleware(_Patience(timeout))
        return patient

    @classmethod
    def by(cls, client: Any) -> Connection:
        """Return a connection by the caller's client, which keeps its own time-out.

        Raises InputError for what is no QdrantClient.
        """
        require_package(
            "qdrant-client", module="qdrant_client", extra="qdrant", purpose="QdrantIndex(client)"
        )
        from qdrant_client import QdrantClient

        if not isinstance(client, QdrantClient):
            raise InputError(
                f"QdrantIndex expects a folder, a URL or a QdrantClient, got {client!r:.80}."
            )
        options = client.init_options
        named = options.get("url") or options.get("host") or options.get("path")
        place = shown_place(str(named or options.get("location") or "qdrant"))
        return cls(client, place=place, own=False)

    def call(self, method: str, *arguments: Any, passing: int | None = None, **options: Any) -> Any:
        """Return what a method of the client returns; None for an answer of status ``passing``.

        Raises IndexUnavailableError, which names the place, for whatever else fails.
        """
        from grpc import RpcError
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        if self._closed:
            raise IndexUnavailableError(
                f"The index at {self.place!r} was closed. Open it again: QdrantIndex(url)."
            )
        try:
            with self._turn:
                return getattr(self._client, method)(*arguments, **options)
        except UnexpectedResponse as error:
            if error.status_code == passing:
                return None
            status = f"{error.status_code} {error.reason_phrase}: {_reason(error.content)}"
            raise self._unavailable(method, status, _remedy(error.status_code)) from error
        except ResourceExhaustedResponse as error:
            raise self._unavailable(method, f"429: {error}", _remedy(429)) from error
        except ResponseHandlingException as error:
            source = error.source
            reason = f"{type(source).__name__} ({source!s:.200})"
            raise self._unavailable(method, reason, _remedy(None)) from error
        except (RpcError, ValueError, RuntimeError, AssertionError) as error:
            # gRPC, of a caller's client; the local mode, for a collection that is not there or was
            # closed; an answer that is no JSON, or lacks its result
            if passing is not None and ("not found" in str(error) or "exists" in str(error)):
                return None
            raise self._unavailable(method, str(error)[:200], _remedy(400)) from error

    def _unavailable(self, method: str, reason: str, remedy: str) -> IndexUnavailableError:
        return IndexUnavailableError(
            f"Qdrant at {self.place!r} failed to {method.replace('_', ' ')}: {reason}. {remedy}"
        )

    def close(self) -> None:
        """Close the client, unless it is the caller's; a later call is refused."""
        if self._own and not self._closed:
            self._client.close()
        self._closed = True


class _Patience:
    """One budget of time a request, for all its tries: a step of qdrant-client's way to httpx."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def __call__(self, request: Any, send: Any) -> Any:
        from httpx import TimeoutException
        from qdrant_client.http.exceptions import ResponseHandlingException

        end, pause = time.monotonic() + self._timeout, _FIRST_PAUSE
        while True:
            left = max(0.001, end - time.monotonic())
            request.extensions["timeout"] = dict.fromkeys(
                ("connect", "read", "write", "pool"), left
            )
            last = time.monotonic() + pause >= end
            try:
                response = send(request)
            except ResponseHandlingException as error:
                # what did not come in time has used the time up
                if last or isinstance(error.source, TimeoutException):
                    raise
            else:
                if last or response.status_code not in _BUSY:
                    return response
            time.sleep(min(pause, max(0.0, end - time.monotonic())))
            pause *= 2


def _is_remote(client: Any) -> bool:
    try:
        return client.http is not None
    except NotImplementedError:  # what the client's local mode answers
        return False


def _reason(content: bytes) -> str:
    return content[:200].decode("utf-8", "replace")


def _remedy(status: int | None) -> str:
    if status in (401, 403):
        return "Pass the api_key= of this server."
    if status is not None and status < 500 and status not in (408, 429):
        return "Is it a Qdrant server of version 1.19 or newer, and the collection whole?"
    return "Is it running and within reach? A longer timeout= waits for a slow one."


def shown_place(url: str) -> str:
    """Return an address as messages show it: without a user, a password or a query.

    >>> shown_place("https://me:secret@host:6333/q?key=secret")
    'https://host:6333/q'
    """
    parts = urlsplit(url)
    if not parts.scheme or not parts.hostname:
        return url
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise InputError(f"url expects a port that is a number, got {url!r:.80}.") from error
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"
