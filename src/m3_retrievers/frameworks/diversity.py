"""Maximal marginal relevance: answers near the question and unlike each other."""

from __future__ import annotations

import numpy as np

from m3_retrievers.errors import InputError
from m3_retrievers.types.packed import Floats

FETCHED = 20
TRADE_OFF = 0.5


def mmr(query: Floats, documents: Floats, *, k: int, trade_off: float = TRADE_OFF) -> list[int]:
    """Return the rows of k documents, each near the query and unlike those before it.

    query (h,), documents (d, h): compared by cosine, the documents of length 1. trade_off: 1
    for nearness alone, 0 for unlikeness alone. Carbonell and Goldstein, "The use of MMR",
    SIGIR 1998. Ties keep the documents' order. Raises InputError for a trade_off outside 0..1.

    >>> near, same, other = np.eye(3)[0], np.eye(3)[0], np.eye(3)[1]
    >>> mmr(np.array([0.8, 0.6, 0.0]), np.stack([near, same, other]), k=2)
    [0, 2]
    """
    if not 0 <= trade_off <= 1:
        raise InputError(
            f"Marginal relevance expects a trade-off from 0 (unlike) to 1 (near), got "
            f"{trade_off!r:.60}."
        )
    length = float(np.linalg.norm(query)) or 1.0
    nearness = _products(documents, query) / length  # (d,)
    likeness = np.full(len(documents), -np.inf)  # to the nearest of those chosen
    chosen: list[int] = []
    while len(chosen) < min(k, len(documents)):
        penalty = (1 - trade_off) * likeness if chosen else 0.0
        value = trade_off * nearness - penalty
        value[chosen] = -np.inf
        best = int(np.argmax(value))
        chosen.append(best)
        likeness = np.maximum(likeness, _products(documents, documents[best]))
    return chosen


def _products(documents: Floats, vector: Floats) -> Floats:
    """Return (d,) each row's product, equal for equal rows: BLAS rounds by a row's place."""
    found: Floats = np.einsum("dh,h->d", documents, vector)
    return found
