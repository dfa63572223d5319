"""Pairs of texts to score: checked, and each text kept once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """n pairs over the different queries and documents among them.

    q_rows, d_rows (n,): the place of each pair's query and document in these lists.
    """

    queries: list[str]
    documents: list[str]
    q_rows: NDArray[np.int64]
    d_rows: NDArray[np.int64]


def distinct(pairs: Sequence[tuple[str, str]]) -> Pairs:
    """Return the pairs with each text once; InputError names the first that is no pair.

    >>> split = distinct([("q", "a"), ("q", "b"), ("r", "a")])
    >>> split.documents, split.d_rows.tolist()
    (['a', 'b'], [0, 1, 0])
    """
    queries: dict[str, int] = {}
    documents: dict[str, int] = {}
    q_rows, d_rows = [], []
    for position, pair in enumerate(pairs):
        query, document = _checked(pair, position)
        q_rows.append(queries.setdefault(query, len(queries)))
        d_rows.append(documents.setdefault(document, len(documents)))
    return Pairs(
        list(queries), list(documents), np.array(q_rows, np.int64), np.array(d_rows, np.int64)
    )


def _checked(pair: tuple[str, str], position: int) -> tuple[str, str]:
    fits = isinstance(pair, tuple | list) and len(pair) == 2
    if not fits or not all(isinstance(text, str) for text in pair):
        raise InputError(
            f"expected pairs (query, document) of strings, got {pair!r:.80} at position {position}."
        )
    return pair[0], pair[1]
