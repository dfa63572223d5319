"""A first look at dense vectors in int8, which says where the k best can be and never errs.

Reading 100,000 × 1024 float32 is what a search waits for; in int8 they are a quarter of it. With
q' and d' the vectors as rounded, ``q·d = q'·d' + (q - q')·d' + q·(d - d')``, so by Cauchy and
Schwarz a score lies within ``|q - q'| |d'| + |q| |d - d'|`` of ``q'·d'``, which integers give
exactly. What is further than that below the k-th best need not be read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.index.stores.chunks import Chunks, GrowingRows
from m3_retrievers.scoring.int8 import LARGEST, int_products, rounded
from m3_retrievers.scoring.top import reached_by
from m3_retrievers.types.packed import Floats

# Rounding of a sum of products in float32: a unit in the last place for each of them at worst.
_ROUNDING = float(np.finfo(np.float32).eps)
_ROUNDED_AT_ONCE = 4_096


class QuantisedRows:
    """Rows (n, h) in int8 with a scale each, and how far rounding moved them at most.

    >>> rows = QuantisedRows(width=128)
    >>> rows.append(np.eye(128, dtype=np.float32))
    >>> rows.candidates(np.eye(128)[5], k=1).tolist()
    [5]
    """

    def __init__(self, *, width: int) -> None:
        self._rows = Chunks(np.empty((0, width), np.int8))
        self._scales = GrowingRows(np.empty(0, np.float32))
        self._moved = self._norm = 0.0  # the largest |d - d'| and |d'|

    def __len__(self) -> int:
        return len(self._rows)

    def append(self, rows: NDArray[np.float32]) -> None:
        """Add vectors (m, h) behind the others, rounded."""
        for at in range(0, len(rows), _ROUNDED_AT_ONCE):
            whole, scales, norms = rounded(rows[at : at + _ROUNDED_AT_ONCE], largest=LARGEST)
            self._norm = max(self._norm, float(norms[0].max()))
            self._moved = max(self._moved, float(norms[1].max()))
            self._rows.append(whole)
            self._scales.append(scales)

    def candidates(
        self, query: Floats, *, k: int, admitted: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Return rows, ascending, among which are the k best of those admitted and their ties.

        query: (h,). admitted: mask (n,); rows beyond it may be among the candidates as well.
        """
        kernel = int_products(len(query))
        if kernel is None:  # made on another machine
            return np.arange(len(self))
        products_of, largest = kernel
        (integers,), (scale,), (_, (moved,)) = rounded(query[None], largest=largest)
        products = [products_of(part, integers) for part in self._rows.parts if len(part)]
        scores = np.concatenate(products).astype(np.float32)
        scores *= self._scales.rows * scale
        norm = float(np.linalg.norm(query))
        error = float(moved) * self._norm + norm * self._moved
        # what these numbers, and scores in float32, are themselves rounded by
        error += len(query) * _ROUNDING * norm * (self._norm + self._moved)
        if admitted is not None:
            scores[~admitted] = -np.inf
        return np.flatnonzero(scores >= reached_by(scores, k) - 2 * error)
