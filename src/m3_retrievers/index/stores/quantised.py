"""A first look at dense vectors in int8, which says where the k best can be and never errs.

Reading 100,000 × 1024 float32 is what a search waits for; in int8 they are a quarter of it. With
q' and d' the vectors as rounded, ``q·d = q'·d' + (q - q')·d' + q·(d - d')``, so by Cauchy and
Schwarz a score lies within ``|q - q'| |d'| + |q| |d - d'|`` of ``q'·d'``, which integers give
exactly. What is further than that below the k-th best need not be read.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.index.stores.chunks import Chunks, GrowingRows
from m3_retrievers.scoring.crowd import crowd
from m3_retrievers.scoring.int8 import LARGEST, IntKernel, int_products, rounded
from m3_retrievers.scoring.top import reached_by
from m3_retrievers.types.packed import Floats

# Rounding of a sum of products in float32: a unit in the last place for each of them at worst.
ROUNDING = float(np.finfo(np.float32).eps)
_ROUNDED_AT_ONCE = 4_096
# Products at once, so that they stay in cache: 64 queries take 47 ms on one core with 2^16,
# 130 with 2^20.
_PRODUCTS_AT_ONCE = 1 << 16


class QuantisedRows:
    """Rows (n, h) in int8 with a scale each, and how far rounding moved them at most.

    >>> rows = QuantisedRows(width=128)
    >>> rows.append(np.eye(128, dtype=np.float32))
    >>> rows.candidates(np.eye(128)[5:6], k=1)[0].tolist()
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
        self, queries: Floats, *, k: int, admitted: NDArray[np.bool_] | None = None
    ) -> list[NDArray[np.int64]]:
        """Return rows, ascending, among which are a query's k best of those admitted, with ties.

        queries: (q, h); one array each. admitted: mask (n,) of the rows that may be found.
        """
        width = queries.shape[1]
        kernel = int_products(width, queries=len(queries))
        if kernel is None:  # made on another machine
            every = np.arange(len(self))
            return [every if admitted is None else every[admitted]] * len(queries)
        integers, scales, (_, moved) = rounded(queries, largest=kernel.largest)
        scores = self._products(kernel, integers)
        scores *= self._scales.rows
        scores *= scales[:, None]
        norms = np.linalg.norm(queries, axis=1)
        errors = moved * self._norm + norms * self._moved
        # what these numbers, and scores in float32, are themselves rounded by
        errors += (width + 4) * ROUNDING * norms * (self._norm + self._moved)
        return best_within(scores, errors, k=k, admitted=admitted)

    def _products(self, kernel: IntKernel, queries: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return (q, n) the products of whole numbers."""
        scores = np.empty((len(queries), len(self)), np.float32)
        products_of = kernel.products_with(queries)
        step = max(1, _PRODUCTS_AT_ONCE // len(queries))

        def multiply(span: tuple[int, int]) -> None:
            done = span[0]
            for part in self._rows.between(*span):
                for at in range(0, len(part), step):
                    rows = part[at : at + step]
                    scores[:, done : done + len(rows)] = products_of(rows)
                    done += len(rows)

        if kernel.has_team:
            multiply((0, len(self)))
        else:
            cuts = np.linspace(0, len(self), crowd().parts + 1).astype(int)
            crowd().side_by_side(multiply, list(pairwise(cuts.tolist())))
        return scores


def best_within(
    scores: NDArray[np.float32],
    errors: Floats,
    *,
    k: int,
    admitted: NDArray[np.bool_] | None,
) -> list[NDArray[np.int64]]:
    """Return for each query the rows that may be among its k best, ascending.

    scores: (q, n), within ``errors`` (q,) of the exact ones; changed where a mask says so.

    >>> near = np.array([[0.5, 0.9, 0.8]], np.float32)
    >>> best_within(near, np.array([0.1]), k=1, admitted=None)[0].tolist()
    [1, 2]
    """
    if admitted is not None:
        scores[:, ~admitted] = -np.inf
    found = []
    for row, error in zip(scores, errors.tolist(), strict=True):
        near = row >= _reached(row, k) - 2 * error
        found.append(np.flatnonzero(near if admitted is None else near & admitted))
    return found


def _reached(scores: NDArray[np.float32], k: int) -> float:
    """Return a value that at least k scores reach, close to the k-th best."""
    reached = reached_by(scores, k)
    if reached > -np.inf or len(scores) <= k:
        return reached
    return float(np.partition(scores, -k)[-k])  # too few for groups
