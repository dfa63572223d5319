"""Dense vectors as other people's vector stores want them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import InputError


def as_vector(given: Sequence[float] | NDArray[Any]) -> NDArray[np.float32]:
    """Return a dense vector (1, h); raises InputError for what is no list of finite numbers.

    >>> as_vector([1, 2]).tolist()
    [[1.0, 2.0]]
    """
    try:
        vector = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        vector = np.empty(0, np.float32)
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise InputError(
            f"A vector expects a list of finite numbers, got {given!r:.60}. Embed one text with "
            "the model of the index; a text itself is searched for by the other methods."
        )
    return vector[None]


def unit_rows(dense: NDArray[np.float32], *, query: bool) -> list[list[float]]:
    """Return (n, h) dense rows as lists, each of length 1.

    The row of a text that the model cannot read is 0. A store that compares by cosine would
    make NaN of it, and one that compares by distance a near neighbour of everything. It gets
    the direction of equal components instead, where no text of a trained model points (cosine
    at most 0.05 for m3-mini), and a query the opposite one: such texts do not match each other.

    >>> unit_rows(np.array([[0.6, 0.8, 0, 0], [0, 0, 0, 0]], np.float32), query=True)[1]
    [-0.5, -0.5, -0.5, -0.5]
    """
    unread: NDArray[np.bool_] = (dense == 0).all(axis=1)
    if unread.any():
        side = -1 if query else 1
        dense = np.where(unread[:, None], np.float32(side / dense.shape[1] ** 0.5), dense)
    rows: list[list[float]] = dense.tolist()
    return rows
