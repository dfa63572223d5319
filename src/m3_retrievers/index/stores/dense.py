"""Exact inner products over a growing matrix of dense vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import InputError
from m3_retrievers.index.stores.chunks import Chunks, Pieces
from m3_retrievers.index.stores.quantised import ROUNDING, QuantisedRows, best_within
from m3_retrievers.scoring.int8 import int_products
from m3_retrievers.scoring.top import top_k
from m3_retrievers.types.packed import Floats

# Gathering a row costs about as much as scoring three in place, so a filter that admits
# more than this share is applied after scoring all rows.
_GATHER_SHARE = 0.25
# Values gathered at once; 2^20 float32 are 4 MiB and stay in cache.
_GATHERED_AT_ONCE = 1 << 20
# From so many rows on they are kept in int8 as well, a quarter more memory.
_QUANTISED_FROM = 16_384
# Reading a candidate again costs as much as the first look at so many rows.
_REREAD_COST = 8
# Scores of a first look at once; 2^23 float32 are 32 MiB.
_SCORES_AT_ONCE = 1 << 23


class DenseIndex:
    """Dense vectors of n rows, float32, numbered in order of appending.

    A row's score has the same bits wherever the row lies and whichever rows are scored with
    it, so equal documents tie and a filter changes no score.

    >>> index = DenseIndex()
    >>> index.append(np.array([[1, 0], [0, 1], [1, 0]], np.float32))
    >>> rows, scores = index.search(np.array([1, 0], np.float32), k=2)
    >>> rows.tolist(), scores.tolist()
    ([0, 2], [1.0, 1.0])
    """

    def __init__(self, rows: NDArray[np.float32] | None = None) -> None:
        """Start with rows (n, h), if any; the first rows fix the width."""
        self._matrix = None if rows is None else Chunks(rows)
        self._first_look: QuantisedRows | None = None
        self._quantise()

    def __len__(self) -> int:
        return 0 if self._matrix is None else len(self._matrix)

    @property
    def width(self) -> int:
        """The vectors' width, 0 before the first rows."""
        return 0 if self._matrix is None else self._matrix.width

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Return the given vectors (r, h) in the order given, copied."""
        return np.empty((0, 0), np.float32) if self._matrix is None else self._matrix.take(rows)

    def pieces(self, rows: NDArray[np.integer[Any]]) -> Pieces:
        """Return the given vectors (r, h) in the order given, as views."""
        if self._matrix is None:
            return Pieces([], rows=0, width=0, dtype=np.dtype(np.float32))
        return self._matrix.pieces(rows, rows + 1)

    def append(self, rows: Floats) -> None:
        """Add vectors (m, h) behind the others; raises InputError for another width."""
        if self._matrix is None:
            self._matrix = Chunks(np.empty((0, rows.shape[1]), np.float32))
        self._check_width(rows.shape[1])
        self._matrix.append(rows)
        self._quantise(most=2 * len(rows))

    def scores(self, query: Floats) -> NDArray[np.float32]:
        """Return (n,) inner products of the query (h,) with every row."""
        if self._matrix is None or not len(self):
            return np.zeros(0, np.float32)
        self._check_width(len(query))
        return np.concatenate([_inner_products(part, query) for part in self._matrix.parts])

    def score(self, query: Floats, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Return (r,) inner products of the query (h,) with the given rows (r,)."""
        if self._matrix is None or not len(rows):
            return np.zeros(0, np.float32)
        self._check_width(len(query))
        step = max(1, _GATHERED_AT_ONCE // max(1, len(query)))
        parts = [
            _inner_products(self._matrix.take(rows[at : at + step]), query)
            for at in range(0, len(rows), step)
        ]
        return np.concatenate(parts)

    def search(
        self, query: Floats, *, k: int | None, admitted: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the k best rows and their scores, best first, ties by row.

        query: (h,). k: None for all. admitted: mask (n,) of the rows that may be found.
        """
        if admitted is not None and np.count_nonzero(admitted) <= _GATHER_SHARE * len(self):
            return self._best(query, np.flatnonzero(admitted), k)
        if k is not None and self._first_look is not None:
            self._check_width(len(query))
            (candidates,) = self._candidates(self._first_look, query[None], k, admitted)
            if len(candidates) * _REREAD_COST < len(self):
                return self._best(query, candidates, k)
        return self._scan(query, k, admitted)

    def search_many(
        self, queries: Floats, *, k: int | None, admitted: NDArray[np.bool_] | None = None
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Return what ``search`` does for each query (q, h), the same bits, reading rows once.

        One product finds each query's candidates, and they alone are scored. 100,000 × 1,024
        and 64 queries: 63 ms on one core, one by one 870.
        """
        if k is None or not len(self):
            return [self.search(query, k=k, admitted=admitted) for query in queries]
        self._check_width(queries.shape[1])
        found = []
        step = max(1, _SCORES_AT_ONCE // len(self))
        for at in range(0, len(queries), step):
            block = queries[at : at + step]
            if self._first_look is None:
                candidates = self._near(block, k, admitted)
            else:
                candidates = self._candidates(self._first_look, block, k, admitted)
            for query, rows in zip(block, candidates, strict=True):
                few = len(rows) * _REREAD_COST < len(self)
                found.append(self._best(query, rows, k) if few else self._scan(query, k, admitted))
        return found

    def _scan(
        self, query: Floats, k: int | None, admitted: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the k best rows and their scores, having scored all."""
        scores = self.scores(query)
        best = top_k(scores, k, candidates=admitted)
        return best, scores[best]

    def _best(
        self, query: Floats, rows: NDArray[np.int64], k: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the k best of the given rows and their scores."""
        scores = self.score(query, rows)
        best = top_k(scores, k)
        return rows[best], scores[best]

    def _candidates(
        self, look: QuantisedRows, queries: Floats, k: int, admitted: NDArray[np.bool_] | None
    ) -> list[NDArray[np.int64]]:
        """Return rows among which are each query's k best that are admitted: few, usually."""
        seen = None if admitted is None else admitted[: len(look)]
        found = look.candidates(queries.astype(np.float32), k=k, admitted=seen)
        later = np.arange(len(look), len(self))
        if admitted is not None:
            later = later[admitted[later]]
        return [np.concatenate([rows, later]) for rows in found]

    def _near(
        self, queries: Floats, k: int, admitted: NDArray[np.bool_] | None
    ) -> list[NDArray[np.int64]]:
        """Return ``_candidates`` by products in float32, which BLAS sums in an order of its own."""
        assert self._matrix is not None  # search_many saw to it
        asked = queries.astype(np.float32)
        parts = [part for part in self._matrix.parts if len(part)]
        scores = np.concatenate([asked @ part.T for part in parts], axis=1)
        # both sums are off by no more than h roundings of the largest product of lengths
        longest = max(float(np.einsum("nh,nh->n", part, part).max()) for part in parts) ** 0.5
        errors = 2 * (self.width + 4) * ROUNDING * np.linalg.norm(asked, axis=1) * longest
        return best_within(scores, errors, k=k, admitted=admitted)

    def _quantise(self, *, most: int | None = None) -> None:
        """Keep rows in int8 as well, where there are many and this machine gains by it.

        most: how many now, so that a small append takes a short time; None for all.
        """
        if self._matrix is None or len(self) < _QUANTISED_FROM or not int_products(self.width):
            return
        if self._first_look is None:
            self._first_look = QuantisedRows(width=self.width)
        done = len(self._first_look)
        last = len(self) if most is None else min(len(self), done + most)
        for part in self._matrix.between(done, last):
            self._first_look.append(part)

    def _check_width(self, width: int) -> None:
        if width != self.width:
            raise InputError(
                f"This index holds dense vectors of width {self.width}, got {width}. "
                "Encode with the model and the truncate_dim it was built with."
            )


def _inner_products(rows: NDArray[np.float32], query: Floats) -> NDArray[np.float32]:
    # Not ``rows @ query``: BLAS sums the last rows of a block in another order, so that equal
    # rows differ in the last bit (measured with OpenBLAS from 2 rows up) and ties no longer
    # break by row. einsum sums every row alike and reads memory as fast: 50,000 × 1024 in
    # 10 ms against 9 ms on 2 cores.
    products: NDArray[np.float32] = np.einsum("nh,h->n", rows, query.astype(np.float32))
    return products
