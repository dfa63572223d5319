"""Late interaction over a growing pack of token vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers import scoring
from m3_retrievers.errors import InputError
from m3_retrievers.index.stores.compressed import (
    ColbertDtype,
    check_colbert_dtype,
    compressed,
    expanded,
    kept_width,
    width_of,
)
from m3_retrievers.index.stores.dense import GrowingRows
from m3_retrievers.scoring.top import top_k
from m3_retrievers.types.packed import MultiVectors, offsets_of

# Values scored at once: 2^20 widened to float32 are 4 MiB and stay in cache. 200 documents of
# 31,000 × 1024 float16 take 42 ms on one core and 30 on two; all in one block 120 and 77.
# 2^19 and 2^21 are within 10 %.
_VALUES_AT_ONCE = 1 << 20


class ColbertStore(ABC):
    """Token vectors of n rows and MaxSim over them, wherever they are kept.

    Rows are numbered in order of appending. A row's score depends on the rows asked for, not
    on where they lie.
    """

    dtype: ColbertDtype

    @property
    @abstractmethod
    def width(self) -> int | None:
        """The vectors' width, None before the first rows."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def append(self, vectors: MultiVectors) -> None:
        """Add the vectors of m rows behind the others; raises InputError for another width."""

    @abstractmethod
    def extend(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add the rows that ``arrays`` gave away behind the others."""

    @abstractmethod
    def arrays(self, rows: NDArray[np.integer[Any]]) -> dict[str, NDArray[Any]]:
        """Return what is kept of the given rows (r,) as plain arrays."""

    @abstractmethod
    def keep(self, rows: NDArray[np.integer[Any]]) -> ColbertStore:
        """Return a store of the given rows (r,) alone."""

    @abstractmethod
    def lengths(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return (r,) the number of vectors of each of the given rows."""

    @abstractmethod
    def gather(self, rows: NDArray[np.integer[Any]]) -> MultiVectors:
        """Return the token vectors of the given rows (r,) to read, which may be a view."""

    def take(self, rows: NDArray[np.integer[Any]]) -> MultiVectors:
        """Return the token vectors of the given rows (r,), copied."""
        vectors = self.gather(rows)
        return MultiVectors(vectors.vectors.copy(), vectors.offsets)

    def score(self, query: MultiVectors, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Return (r,) MaxSim of a query, one text, with the given rows (r,)."""
        scores = np.zeros(len(rows), np.float32)
        if not len(rows):
            return scores
        self.check_width(query.dimension)
        for first, last in _runs(self.lengths(rows) * query.dimension):
            documents = self.gather(rows[first:last])
            scores[first:last] = scoring.maxsim(query, documents)[0]
        return scores

    def search(
        self, query: MultiVectors, *, k: int | None, admitted: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the k best rows by MaxSim and their scores; it reads every admitted row.

        k: None for all. admitted: mask (n,) of the rows that may be found.
        """
        rows = np.arange(len(self)) if admitted is None else np.flatnonzero(admitted)
        scores = self.score(query, rows)
        best = top_k(scores, k)
        return rows[best], scores[best]

    def check_width(self, width: int) -> None:
        """Raise InputError for vectors of another width than those that are kept."""
        if width != (width if self.width is None else self.width):
            raise InputError(
                f"This index holds ColBERT vectors of width {self.width}, got {width}. "
                "Encode with the model it was built with."
            )


class MultiVectorIndex(ColbertStore):
    """One matrix of token vectors a row, packed in memory.

    dtype: as the vectors are kept; see ``compressed``. They are widened a block at a time.

    >>> index = MultiVectorIndex(dtype="float32")
    >>> index.append(MultiVectors.from_rows([np.eye(2, dtype=np.float32)]))
    >>> query = MultiVectors.from_rows([np.array([[0, 1], [-1, 0]], np.float32)])
    >>> index.score(query, np.array([0])).tolist()
    [0.5]
    """

    def __init__(
        self, vectors: MultiVectors | None = None, *, dtype: ColbertDtype = "float16"
    ) -> None:
        """Start with the vectors of n rows, if any; the first rows fix the width."""
        check_colbert_dtype(dtype)
        self.dtype = dtype
        self._kept: GrowingRows | None = None
        self._ends = GrowingRows(np.zeros(1, np.int64))
        if vectors is not None:
            self._start(compressed(vectors.vectors, dtype), vectors.offsets)

    @classmethod
    def of_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], *, dtype: ColbertDtype
    ) -> MultiVectorIndex:
        """Return the rows that ``arrays`` gave away, without a copy."""
        index = cls(dtype=dtype)
        index._start(arrays["colbert.vectors"], arrays["colbert.offsets"])
        return index

    def _start(self, kept: NDArray[Any], offsets: NDArray[np.int64]) -> None:
        self._kept, self._ends = GrowingRows(kept), GrowingRows(offsets)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def width(self) -> int | None:
        """The vectors' width, None before the first rows."""
        return None if self._kept is None else width_of(self._kept.rows.shape[1], self.dtype)

    def append(self, vectors: MultiVectors) -> None:
        """Add the vectors of m rows behind the others; raises InputError for another width."""
        self.check_width(vectors.dimension)
        self._append(compressed(vectors.vectors, self.dtype), vectors.offsets)

    def extend(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add the rows that ``arrays`` gave away behind the others."""
        kept = arrays["colbert.vectors"]
        self.check_width(width_of(kept.shape[1], self.dtype))
        self._append(kept, arrays["colbert.offsets"])

    def _append(self, kept: NDArray[Any], offsets: NDArray[np.int64]) -> None:
        if self._kept is None:
            self._kept = GrowingRows(np.empty((0, kept.shape[1]), self.dtype))
        first = len(self._kept)
        self._kept.append(kept)
        self._ends.append(first + offsets[1:])

    def arrays(self, rows: NDArray[np.integer[Any]]) -> dict[str, NDArray[Any]]:
        """Return the vectors of the given rows (r,), as they are kept, and offsets (r + 1,)."""
        held = np.empty((0, kept_width(0, self.dtype)), self.dtype)
        kept, offsets = _gather(
            held if self._kept is None else self._kept.rows, self._ends.rows, rows
        )
        return {"colbert.vectors": kept, "colbert.offsets": offsets}

    def keep(self, rows: NDArray[np.integer[Any]]) -> MultiVectorIndex:
        """Return an index of the given rows (r,) alone; none of them take any width."""
        if not len(rows):
            return MultiVectorIndex(dtype=self.dtype)
        arrays = self.arrays(rows)
        # rows that adjoin come as a view, which would hold on to all the others
        owned = {**arrays, "colbert.vectors": arrays["colbert.vectors"].copy()}
        return MultiVectorIndex.of_arrays(owned, dtype=self.dtype)

    def lengths(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return (r,) the number of vectors of each of the given rows."""
        ends = self._ends.rows
        lengths: NDArray[np.int64] = ends[rows + 1] - ends[rows]
        return lengths

    def gather(self, rows: NDArray[np.integer[Any]]) -> MultiVectors:
        """Return the token vectors of the given rows (r,): a view where floats adjoin."""
        arrays = self.arrays(rows)
        return MultiVectors(
            expanded(arrays["colbert.vectors"], self.dtype), arrays["colbert.offsets"]
        )


def _gather(
    kept: NDArray[Any], ends: NDArray[np.int64], rows: NDArray[np.integer[Any]]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return some texts of a pack and their offsets: a view where they adjoin, otherwise copied."""
    firsts, lasts = ends[rows], ends[rows + 1]
    offsets = offsets_of(lasts - firsts)
    if not len(rows):
        return kept[:0], offsets
    if np.all(np.diff(rows) == 1):
        return kept[firsts[0] : lasts[-1]], offsets
    slices = [kept[a:b] for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True)]
    return np.concatenate(slices), offsets


def _runs(sizes: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Cut texts of the given sizes into runs that are scored at once."""
    ends, runs, first = np.cumsum(sizes), [], 0
    while first < len(sizes):
        done = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, done + _VALUES_AT_ONCE, side="right"))
        runs.append((first, max(last, first + 1)))
        first = runs[-1][1]
    return runs
