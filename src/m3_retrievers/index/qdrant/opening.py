"""From what a caller names as a place to the engine there, and the options that come with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m3_retrievers.errors import InputError
from m3_retrievers.index.base import TermWeighting
from m3_retrievers.index.qdrant.client import ClientEngine
from m3_retrievers.index.qdrant.connection import Connection
from m3_retrievers.index.qdrant.edge import EdgeEngine
from m3_retrievers.index.qdrant.requests import Engine
from m3_retrievers.types.representations import ALL_OUTPUTS, Output

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

_COLLECTION = re.compile(r"(?!\.+$)[\w.-]{1,200}")
_TIMEOUT = 10.0


def engine_at(
    location: str | Path | QdrantClient,
    collection: str,
    *,
    api_key: str | None,
    timeout: float | None,
) -> Engine:
    """Return the engine at a place; nothing but opening a folder is done yet."""
    if not isinstance(collection, str) or not _COLLECTION.fullmatch(collection):
        raise InputError(
            "collection expects a name of letters, digits, - _ and ., got "
            f"{collection!r:.80}. Choose another one."
        )
    if isinstance(location, str) and location.startswith(("http://", "https://")):
        seconds = _TIMEOUT if timeout is None else timeout
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            raise InputError(f"timeout expects seconds above 0, got {timeout!r:.80}.")
        return ClientEngine(Connection.to(location, api_key=api_key, timeout=seconds), collection)
    if api_key is not None or timeout is not None:
        raise InputError(
            "api_key and timeout belong to the URL of a server, got them with "
            f"{location!r:.80}. Leave them out, or give an address such as https://host:6333."
        )
    if isinstance(location, str | Path):
        return EdgeEngine(Path(location), collection)
    return ClientEngine(Connection.by(location), collection)


def checked_modes(
    modes: Sequence[Output] | None, weighting: TermWeighting | None
) -> tuple[Output, ...] | None:
    """Return the outputs to be stored, in one order; InputError for other names, and for none."""
    if modes is None:
        return None
    named = () if isinstance(modes, str) or not isinstance(modes, Sequence) else tuple(modes)
    kept = tuple(name for name in ALL_OUTPUTS if name in named)
    if len(kept) != len(named) or not (kept or weighting):
        raise InputError(f"modes expects different names of {ALL_OUTPUTS}, got {modes!r:.80}.")
    return kept


def checked_length(length: float | None, weighting: TermWeighting | None) -> float | None:
    """Return BM25's average length; InputError for one below 1, or without BM25."""
    if length is None:
        return None
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= 1:
        raise InputError(f"average_length expects a number of at least 1, got {length!r:.80}.")
    if weighting is None:
        raise InputError(
            f"average_length belongs to BM25, got {length!r} without weighting=. Pass BM25() too."
        )
    return float(length)
