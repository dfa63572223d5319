"""Exact top-k over postings, for whatever produces term weights: M3, BM25, SPLADE.

A posting is a document's weight for one term; a posting list holds a term's postings by
ascending row. A query touches only the lists of its own terms.

Appends interleave with searches, so the rows lie in immutable segments whose sizes at
least halve from one to the next: an append makes a small segment and merges neighbours of
similar size, so each row is merged about log2(n) times in its life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers.errors import InputError
from m3_retrievers.index.stores.postings import add_postings
from m3_retrievers.scoring.top import top_k
from m3_retrievers.types.packed import Floats, offsets_of

Rows = NDArray[np.integer[Any]]

# Weights from here up cannot vanish in a product, so a positive score proves a shared term.
_SURELY_POSITIVE = 1e-100
# Reading one given row costs about what scanning 100 rows through the posting lists costs
# (100,000 rows of 64 terms, 12 query terms: 1,000 given rows 0.7 ms, all rows 0.8 ms).
_ROW_COST = 100


class InvertedIndex:
    """Term weights of n rows, searchable by term; rows are numbered in order of appending.

    Which rows were deleted is the owner's business: it searches under a mask, and starts anew
    with ``from_matrix`` when too many are gone. Weights may be of either sign. Queries and
    rows may differ in width: a column that one side lacks matches nothing. Scores are sums in
    float64. One writer at a time; the owner keeps readers out meanwhile.

    >>> index = InvertedIndex.from_matrix(sp.csr_array([[1.0, 0.0], [3.0, 1.0], [0.0, 9.0]]))
    >>> rows, scores = index.search(sp.csr_array([[2.0, 0.0]]), k=5)
    >>> rows.tolist(), scores.tolist()
    ([1, 0], [6.0, 2.0])
    """

    def __init__(self) -> None:
        self._segments: tuple[_Segment, ...] = ()
        self._rows = 0
        self._width = 0

    @classmethod
    def from_matrix(cls, matrix: sp.csr_array) -> InvertedIndex:
        """Return an index of the rows of a CSR matrix (n, v)."""
        index = cls()
        index.append(matrix)
        return index

    def __len__(self) -> int:
        return self._rows

    @property
    def matrix(self) -> sp.csr_array:
        """The rows as one CSR matrix (n, v)."""
        return _stack([segment.matrix for segment in self._segments], width=self._width)

    def take(self, rows: Rows) -> sp.csr_array:
        """Return the given rows (r, v), in the order given, copied."""
        order, parts = [np.empty(0, np.int64)], []
        for first, segment in self._placed():
            here = np.flatnonzero((rows >= first) & (rows < first + len(segment)))
            order.append(here)
            parts.append(segment.matrix[rows[here] - first])
        stacked = _stack(parts, width=self._width)
        return sp.csr_array(stacked[np.argsort(np.concatenate(order))])

    def append(self, rows: sp.csr_array, *, merge: bool = True) -> None:
        """Add rows (n, v) of finite weights behind the others, copied.

        merge: whether segments are merged now; otherwise ``merged`` does it. Raises InputError
        for NaN or infinity.
        """
        matrix = canonical(rows)
        if np.may_share_memory(matrix.data, rows.data):
            matrix = matrix.copy()  # the caller may change what it gave
        self._width = max(self._width, matrix.shape[1])
        if not matrix.shape[0]:
            return
        self._segments = (*self._segments, _Segment.of(matrix))
        self._rows += matrix.shape[0]
        if merge:
            self.adopt(self.merged())

    def merged(self) -> tuple[_Segment, ...]:
        """Return the segments as they are to be, for ``adopt``; readers may go on meanwhile."""
        segments = list(self._segments)
        while len(segments) > 1 and segments[-2].size < 2 * segments[-1].size:
            pair = [segments.pop().matrix, segments.pop().matrix][::-1]
            segments.append(_Segment.of(_stack(pair, width=self._width)))
        return tuple(segments)

    def adopt(self, segments: tuple[_Segment, ...]) -> None:
        """Take what ``merged`` returned, if nothing was appended since."""
        self._segments = segments

    def search(
        self, query: sp.csr_array, *, k: int | None, admitted: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the k best rows and their scores, best first, ties by row.

        query: (1, v). k: None for every row that matches. admitted: mask (n,) of the rows that
        may be found. Only rows that share a term with the query are found, whatever they score.

        Raises InputError for k below 1, a query of several rows or a mask of another length.
        """
        terms = _Terms.of(query)
        scores = self._sums(terms)
        if admitted is not None and (admitted.shape != scores.shape or admitted.dtype != bool):
            raise InputError(
                f"admitted expects a boolean mask of shape {scores.shape}, got "
                f"{admitted.dtype} {admitted.shape}."
            )
        if admitted is not None and admitted.all():
            admitted = None
        if k is not None and self._positive(terms):
            # whatever scores above 0 shares a term, so nothing has to be sorted out before
            if admitted is not None:
                scores *= admitted
            rows = top_k(scores, k)
            rows = rows[scores[rows] > 0]
        else:
            found = self._matched(terms, scores)
            rows = top_k(scores, k, candidates=found if admitted is None else found & admitted)
        return rows, scores[rows]

    def scores(self, query: sp.csr_array) -> NDArray[np.float64]:
        """Return (n,) the score of every row."""
        return self._sums(_Terms.of(query))

    def score(self, query: sp.csr_array, rows: Rows) -> NDArray[np.float64]:
        """Return the scores of the given rows (r,), the same floats as ``scores(query)[rows]``."""
        if len(rows) * _ROW_COST > len(self):
            return self.scores(query)[rows]
        terms = _Terms.of(query)
        result = np.zeros(len(rows))
        for first, segment in self._placed():
            here = np.flatnonzero((rows >= first) & (rows < first + len(segment)))
            if len(here):
                result[here] = segment.row_sums(terms, rows[here] - first)
        return result

    def _placed(self) -> list[tuple[int, _Segment]]:
        """Pair each segment with the number of its first row."""
        firsts = offsets_of([len(segment) for segment in self._segments])
        return list(zip(firsts.tolist(), self._segments, strict=False))

    def _sums(self, terms: _Terms) -> NDArray[np.float64]:
        sums = np.zeros(len(self))
        for first, segment in self._placed():
            segment.add_to(sums[first : first + len(segment)], terms)
        return sums

    def _positive(self, terms: _Terms) -> bool:
        """Return whether a row with a posting for one of the terms scores above 0."""
        return terms.positive and all(segment.positive for segment in self._segments)

    def _matched(self, terms: _Terms, sums: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return the mask (n,) of rows with a posting for one of the terms."""
        if self._positive(terms):
            return sums > 0
        matched = np.zeros(len(self), bool)
        for at, segment in self._placed():
            firsts, lasts, _ = segment.lists(terms)
            for first, last in zip(firsts, lasts, strict=True):
                matched[at + segment.rows[first:last]] = True
        return matched


@dataclass(frozen=True, slots=True, eq=False)
class _Terms:
    """A query: ids (i,) ascending and distinct, weights (i,) float64."""

    ids: Rows
    weights: NDArray[np.float64]
    positive: bool

    @classmethod
    def of(cls, query: sp.csr_array) -> _Terms:
        if query.shape[0] != 1:
            raise InputError(f"A query expects shape (1, v), got {query.shape}: pass one a call.")
        ids, weights = query.indices, query.data.astype(np.float64)
        # matrices cost a query more than its sums; most come as they should be
        if not (np.all(ids[1:] > ids[:-1]) and np.all(weights)):
            row = canonical(query)
            ids, weights = row.indices, row.data.astype(np.float64)
        elif not np.all(np.isfinite(weights)):
            raise _not_finite()
        return cls(ids, weights, bool(np.all(weights >= _SURELY_POSITIVE)))


@dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """Some consecutive rows, by row (``matrix``) and by term.

    terms: (u,) ascending, those that occur; term s owns postings ``starts[s]:starts[s + 1]``
    of rows (t,) int32 and weights (t,). Absent terms cost nothing, so a segment of one row is
    small in a vocabulary of 250,000.
    """

    matrix: sp.csr_array
    terms: Rows
    starts: Rows
    rows: NDArray[np.int32]
    weights: Floats
    positive: bool

    @classmethod
    def of(cls, matrix: sp.csr_array) -> _Segment:
        kept = matrix.indices.astype(np.int32, copy=False)  # a vocabulary's ids fit into 31 bits
        matrix = sp.csr_array((matrix.data, kept, matrix.indptr), shape=matrix.shape)
        terms, slots = _distinct(matrix.indices, width=matrix.shape[1])
        shape = (matrix.shape[0], len(terms))
        columns = sp.csr_array((matrix.data, slots, matrix.indptr), shape=shape).tocsc()
        return cls(
            matrix=matrix,
            terms=terms,
            starts=columns.indptr,
            rows=columns.indices.astype(np.int32, copy=False),
            weights=columns.data,
            positive=bool(np.all(columns.data >= _SURELY_POSITIVE)),
        )

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def size(self) -> int:
        return len(self) + len(self.rows)

    def lists(self, terms: _Terms) -> tuple[Rows, Rows, NDArray[np.float64]]:
        """Return where each known term's postings begin and end, and the query's weight for it."""
        slots = np.searchsorted(self.terms, terms.ids)
        known = np.flatnonzero(_at(self.terms, slots) == terms.ids)
        slots = slots[known]
        return self.starts[slots], self.starts[slots + 1], terms.weights[known]

    def add_to(self, sums: NDArray[np.float64], terms: _Terms) -> None:
        """Add each row's score to ``sums`` (n,), term after term."""
        add_postings(sums, self.rows, self.weights, *self.lists(terms))

    def row_sums(self, terms: _Terms, rows: Rows) -> NDArray[np.float64]:
        """Return the scores (r,) of some rows, read by row."""
        starts, lengths = self.matrix.indptr[rows], np.diff(self.matrix.indptr)[rows]
        offsets = offsets_of(lengths)
        # position of each weight: its row's start plus its place within the row
        at = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        columns = self.matrix.indices[at]
        slots = np.searchsorted(terms.ids, columns)
        shared = np.flatnonzero(_at(terms.ids, slots) == columns)
        products = self.matrix.data[at[shared]] * terms.weights[slots[shared]]
        owners = np.repeat(np.arange(len(rows)), lengths)[shared]
        sums = np.zeros(len(rows))
        np.add.at(sums, owners, products)
        return sums


def _distinct(columns: Rows, *, width: int) -> tuple[Rows, Rows]:
    """Return the columns that occur, ascending, and each column's place among them."""
    if len(columns) < width:  # a few rows: sorting them is cheaper than a pass over the width
        return np.unique(columns, return_inverse=True)
    occurs = np.zeros(width, bool)
    occurs[columns] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[columns]


def _at(values: Rows, slots: Rows) -> Rows:
    """Return the values at the slots of a search; one past the end finds another than it sought."""
    if not len(values):
        return np.full(len(slots), -1)
    return values[np.minimum(slots, len(values) - 1)]


def canonical(rows: sp.csr_array) -> sp.csr_array:
    """Return the rows as floats in CSR, columns ascending and distinct, without stored zeros.

    The input stays as it is.
    """
    kept = rows.dtype in (np.float32, np.float64)
    data = rows.data if kept else rows.data.astype(np.float64)
    matrix = sp.csr_array((data, rows.indices, rows.indptr), shape=rows.shape)
    if not np.all(np.isfinite(data)):
        raise _not_finite()
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    if not np.all(matrix.data):
        # a term of weight 0 is no match; left in, it would be one where weights have signs
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    return matrix


def _not_finite() -> InputError:
    return InputError("Term weights expect finite numbers, got NaN or infinity among them.")


def _stack(parts: list[sp.csr_array], *, width: int) -> sp.csr_array:
    """Return the parts under each other, (n, width)."""
    if not parts:
        return sp.csr_array((0, width), dtype=np.float64)
    wide = [
        sp.csr_array((part.data, part.indices, part.indptr), shape=(part.shape[0], width))
        for part in parts
    ]
    return sp.csr_array(sp.vstack(wide, format="csr")) if len(wide) > 1 else wide[0]
