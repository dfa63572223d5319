"""Dense vectors as other people's vector stores want them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
