"""How a server is asked: the options, checked; httpx is loaded by whoever connects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from m3_retrievers.checks import check_k, require_package
from m3_retrievers.errors import InputError

if TYPE_CHECKING:
    from m3_retrievers.encoder.remote.transport import Transport


@dataclass(frozen=True, slots=True)
class Connection:
    """How an encoder talks to its server.

    api_key: sent as a bearer token, and shown in no message. timeout: seconds that one request
    may take, its answer included. retries: how often a request is sent again when the server is
    busy (429, 502, 503) or the connection is lost; encoding changes nothing there, so it may be.
    The waits begin at a quarter of a second and double, or are what the server asks for, up to
    30 s. in_flight: requests at once. batch_tokens: tokens of one request, about.

    >>> Connection(api_key="secret", in_flight=2)
    Connection(timeout=60.0, retries=4, in_flight=2, batch_tokens=8192)
    """

    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    retries: int = 4
    in_flight: int = 4
    batch_tokens: int = 8192

    def __post_init__(self) -> None:
        check_k(self.in_flight, name="in_flight")
        check_k(self.batch_tokens, name="batch_tokens")
        if type(self.retries) is not int or self.retries < 0:
            raise InputError(f"retries expects an integer ≥ 0, got {self.retries!r:.40}.")
        number = isinstance(self.timeout, int | float) and not isinstance(self.timeout, bool)
        if not number or not math.isfinite(self.timeout) or self.timeout <= 0:
            raise InputError(f"timeout expects seconds > 0, got {self.timeout!r:.40}.")
        key = self.api_key
        if key is not None and not (isinstance(key, str) and key.isascii() and key.isprintable()):
            # the key itself stays out of the message
            raise InputError("api_key expects printable ASCII characters, got others among them.")


def connect(url: str, connection: Connection | None, *, purpose: str) -> Transport:
    """Return what sends requests to a server; InputError for what is no address of one.

    Raises MissingExtraError without httpx. purpose: what needs it.
    """
    require_package("httpx", module="httpx", extra="remote", purpose=purpose)
    from m3_retrievers.encoder.remote.transport import Transport

    if connection is not None and not isinstance(connection, Connection):
        raise InputError(
            f"connection expects Connection(timeout=…, …) or None, got {type(connection).__name__}."
        )
    return Transport(check_url(url), connection or Connection())


def check_url(url: str) -> str:
    """Return a server's address without the slash or ``/v1`` that users leave at its end.

    >>> check_url("http://localhost:8000/v1/")
    'http://localhost:8000'
    """
    if not isinstance(url, str):
        raise InputError(f"url expects a server's address, got {type(url).__name__}.")
    if not _is_address(url):
        raise InputError(
            f"url expects a server's address such as 'http://localhost:8080', got {_plain(url)}."
        )
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def shown(url: str) -> str:
    """Return an address as messages show it: without user name and password.

    >>> shown("https://me:secret@models.example:8443/m3")
    'https://models.example:8443/m3'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def about_texts(texts: Sequence[str]) -> str:
    """Return how messages speak of a request's texts."""
    if not texts:
        return "no text"
    first = f"{texts[0][:50]!r}"
    return first if len(texts) == 1 else f"{len(texts)} texts, the first {first}"


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        return False
    return whole and not parts.query and not parts.fragment and url.isprintable()


def _plain(url: str) -> str:
    return repr(url.rpartition("@")[2][:80])
