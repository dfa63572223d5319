"""Late interaction over a growing pack of token vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers import scoring
from m3_retrievers.errors import InputError
from m3_retrievers.index.stores.chunks import Chunks, GrowingRows, Pieces
from m3_retrievers.index.stores.compressed import (
    ColbertDtype,
    check_colbert_dtype,
    compressed,
    expanded,
    kept_width,
    scaled,
    width_of,
)
from m3_retrievers.scoring.int8_maxsim import Int8Texts, maxsim_of_int8, multiplies_int8
from m3_retrievers.scoring.largest_products import Spans
from m3_retrievers.scoring.late_interaction import compiles, maxsim_of_spans
from m3_retrievers.scoring.top import top_k
from m3_retrievers.types.packed import Floats, MultiVectors, offsets_of

# Values read or expanded at once where they cannot be scored in place: 4 MiB of float32.
_VALUES_AT_ONCE = 1 << 20
# Bytes of int8 put together for one product: 200 documents of 128 × 1,024 take 5.4 ms on one
# core, 7.5 with four times as many at once; a product a document takes half as long again at
# a width of 384.
_BYTES_AT_ONCE = 1 << 20
# Similarities held at once: 2^24 float32 are 64 MiB.
_SIMILARITIES_AT_ONCE = 1 << 24


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

    def pieces(self, rows: NDArray[np.integer[Any]]) -> Iterator[Floats]:
        """Yield the token vectors of the given rows (r,) in order, some at a time, to read."""
        for first, last in _runs(self.lengths(rows) * (self.width or 0), most=_VALUES_AT_ONCE):
            yield self.gather(rows[first:last]).vectors

    def placed(self, rows: NDArray[np.integer[Any]]) -> Iterator[Spans]:
        """Yield what is kept of the given rows (r,), which are numbered from 0."""
        lengths = self.lengths(rows)
        for first, last in _runs(lengths * (self.width or 0), most=_VALUES_AT_ONCE):
            offsets, numbers = offsets_of(lengths[first:last]), np.arange(first, last)
            filled = np.flatnonzero(lengths[first:last])
            if len(filled):
                spans = list(self._spans(rows[first:last]))
                kept = spans[0] if len(spans) == 1 else np.concatenate(spans)
                yield Spans(kept, offsets[filled], offsets[filled + 1], numbers[filled])

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
        lengths = self.lengths(rows)
        if compiles(query, vectors=int(lengths.sum())):
            scores[:] = maxsim_of_spans(query, self.placed(rows), lengths=lengths)[0]
            return scores
        if self.dtype == "int8" and len(query.vectors) and multiplies_int8(query.dimension):
            return maxsim_of_int8(query.vectors, self._blocks(rows))
        for first, last in _runs(lengths * len(query.vectors), most=_SIMILARITIES_AT_ONCE):
            scores[first:last] = scoring.maxsim_of_pieces(
                query, self.pieces(rows[first:last]), lengths=lengths[first:last]
            )[0]
        return scores

    @abstractmethod
    def _spans(self, rows: NDArray[np.integer[Any]]) -> Iterator[NDArray[Any]]:
        """Yield what is kept of the given rows (r,), as it is kept, in their order."""

    def _blocks(self, rows: NDArray[np.integer[Any]]) -> Iterator[Int8Texts]:
        """Yield what is kept in int8 of the given rows (r,), each block good until the next one."""
        lengths, width = self.lengths(rows), self.width or 0
        runs = _runs(lengths * width, most=_BYTES_AT_ONCE)
        ends = offsets_of(lengths)
        most = max((int(ends[last] - ends[first]) for first, last in runs), default=0)
        # one buffer for all: new pages for each block would cost as much as filling it
        buffer = np.empty((most, kept_width(width, "int8")), np.int8)
        for first, last in runs:
            block = buffer[: ends[last] - ends[first]]
            if len(block):
                np.concatenate(list(self._spans(rows[first:last])), out=block)
            yield Int8Texts(*scaled(block), lengths[first:last])

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
    """One matrix of token vectors a row, packed in memory or in a file.

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
        self._kept: Chunks | None = None
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
        self._kept, self._ends = Chunks(kept), GrowingRows(offsets)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def width(self) -> int | None:
        """The vectors' width, None before the first rows."""
        return None if self._kept is None else width_of(self._kept.width, self.dtype)

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
            self._kept = Chunks(np.empty((0, kept.shape[1]), self.dtype))
        first = len(self._kept)
        self._kept.adopt(kept)
        self._ends.append(first + offsets[1:])

    def arrays(self, rows: NDArray[np.integer[Any]]) -> dict[str, Any]:
        """Return the vectors of the given rows (r,), as they are kept, and offsets (r + 1,).

        The vectors are ``Pieces``, views of what is kept.
        """
        ends, offsets = self._ends.rows, offsets_of(self.lengths(rows))
        if self._kept is None:
            width, dtype = kept_width(0, self.dtype), np.dtype(self.dtype)
            pieces = Pieces([], rows=0, width=width, dtype=dtype)
        else:
            pieces = self._kept.pieces(ends[rows], ends[rows + 1])
        return {"colbert.vectors": pieces, "colbert.offsets": offsets}

    def keep(self, rows: NDArray[np.integer[Any]]) -> MultiVectorIndex:
        """Return an index of the given rows (r,) alone; none of them take any width."""
        if not len(rows):
            return MultiVectorIndex(dtype=self.dtype)
        arrays = self.arrays(rows)
        # views would hold on to all the others
        owned = {**arrays, "colbert.vectors": np.asarray(arrays["colbert.vectors"])}
        return MultiVectorIndex.of_arrays(owned, dtype=self.dtype)

    def lengths(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return (r,) the number of vectors of each of the given rows."""
        ends = self._ends.rows
        lengths: NDArray[np.int64] = ends[rows + 1] - ends[rows]
        return lengths

    def gather(self, rows: NDArray[np.integer[Any]]) -> MultiVectors:
        """Return the token vectors of the given rows (r,), copied."""
        arrays = self.arrays(rows)
        vectors = expanded(np.asarray(arrays["colbert.vectors"]), self.dtype)
        return MultiVectors(vectors, arrays["colbert.offsets"])

    def take(self, rows: NDArray[np.integer[Any]]) -> MultiVectors:
        """Return the token vectors of the given rows (r,), copied."""
        return self.gather(rows)

    def pieces(self, rows: NDArray[np.integer[Any]]) -> Iterator[Floats]:
        """Yield the token vectors of the given rows (r,) in order: views where they are floats."""
        step = max(1, _VALUES_AT_ONCE // max(1, self.width or 0))
        for span in self._spans(rows):
            if self.dtype == "int8":
                yield from (expanded(span[a : a + step], "int8") for a in range(0, len(span), step))
            else:
                yield span

    def placed(self, rows: NDArray[np.integer[Any]]) -> Iterator[Spans]:
        """Yield what is kept of the given rows (r,), which are numbered from 0, where it lies."""
        if self._kept is not None:
            ends = self._ends.rows
            for found in self._kept.placed(ends[rows], ends[rows + 1]):
                yield Spans(*found)

    def _spans(self, rows: NDArray[np.integer[Any]]) -> Iterator[NDArray[Any]]:
        """Yield views of what is kept, together where rows adjoin."""
        if self._kept is not None:
            ends = self._ends.rows
            yield from self._kept.spans(ends[rows], ends[rows + 1])


def _runs(sizes: NDArray[np.int64], *, most: int) -> list[tuple[int, int]]:
    """Cut texts of the given sizes into runs of ``most`` in all, or a text alone."""
    ends, runs, first = np.cumsum(sizes), [], 0
    while first < len(sizes):
        done = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, done + most, side="right"))
        runs.append((first, max(last, first + 1)))
        first = runs[-1][1]
    return runs
