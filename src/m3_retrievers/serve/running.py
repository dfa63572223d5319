"""A server process: the application on a port, until it is told to stop."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Sequence

import uvicorn

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.serve.app import create_app
from m3_retrievers.serve.limits import Limits
from m3_retrievers.serve.state import Served

_LOCAL = ("localhost", "127.0.0.1", "[::1]")


def run(
    encoder: Encoder,
    retriever: HybridRetriever | Sequence[Served] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    limits: Limits | None = None,
    api_key: str | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; requests under way are answered first.

    Without a key, and on this machine alone, only requests that name this machine are answered:
    a page in a browser may make its own name point here.
    """
    if type(port) is not int or not 0 <= port < 2**16:
        raise InputError(f"port expects an integer from 0 to 65535, got {port!r:.40}.")
    bounds = limits or Limits()
    encoder.encode_documents(["a"])  # a model that cannot be loaded is said before a port is open
    app = create_app(
        encoder,
        retriever,
        limits=bounds,
        api_key=api_key,
        hosts=(*_LOCAL, host) if api_key is None and is_local(host) else None,
    )
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=math.ceil(bounds.timeout),
    )


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine alone.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
