"""Each text once: what a call repeats is encoded and scored once, and its result scattered.

Equal texts get equal bits that way. Encoded side by side they may not: which texts share a
batch, and where in it a text lies, changes the order in which sums are rounded.
"""

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


def distinct_texts(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the different texts, in order of first appearance, and each text's row in them.

    >>> different, rows = distinct_texts(["b", "a", "b"])
    >>> different, rows.tolist()
    (['b', 'a'], [0, 1, 0])
    """
    places: dict[str, int] = {}
    rows = [places.setdefault(text, len(places)) for text in texts]
    return list(places), np.array(rows, np.int64)


def distinct_pairs(pairs: Sequence[tuple[str, str]]) -> Pairs:
    """Return the pairs with each text once; InputError names the first that is no pair.

    >>> split = distinct_pairs([("q", "a"), ("q", "b"), ("r", "a")])
    >>> split.documents, split.d_rows.tolist()
    (['a', 'b'], [0, 1, 0])
    """
    if isinstance(pairs, str | bytes) or not hasattr(pairs, "__iter__"):
        raise InputError(
            f"expected a list of pairs (query, document), got {pairs!r:.60}. "
            "Pass [(query, document), …]."
        )
    checked = [_checked(pair, position) for position, pair in enumerate(pairs)]
    queries, q_rows = distinct_texts([query for query, _ in checked])
    documents, d_rows = distinct_texts([document for _, document in checked])
    return Pairs(queries, documents, q_rows, d_rows)


def _checked(pair: tuple[str, str], position: int) -> tuple[str, str]:
    fits = isinstance(pair, tuple | list) and len(pair) == 2
    if not fits or not all(isinstance(text, str) for text in pair):
        raise InputError(
            f"expected pairs (query, document) of strings, got {pair!r:.80} at position {position}."
        )
    return pair[0], pair[1]
