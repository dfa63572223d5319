"""Term weights that depend on the whole collection, kept up to date as it changes."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers.index.base import TermWeighting
from m3_retrievers.index.stores.inverted import InvertedIndex
from m3_retrievers.index.stores.live import LiveRows

Rows = NDArray[np.int64]


class WeightedIndex:
    """Raw term counts under a ``TermWeighting`` such as BM25.

    One document more changes the weights of all the others, so weights are made again from
    the live documents' counts at the first search after a change, and never in between: the
    scores equal those of a fresh fit. Several threads may search at once.
    """

    def __init__(self, weighting: TermWeighting, counts: sp.csr_array | None = None) -> None:
        """Start with the counts (n, v) of n rows, if any."""
        self.weighting = weighting
        self._parts = [] if counts is None else [counts]
        self._fitted: tuple[int, InvertedIndex] | None = None
        self._fitting = Lock()  # held by readers alone, for whom a fork waits

    def __getstate__(self) -> dict[str, Any]:
        """Leave the fit out: another process numbers its generations anew."""
        return {**self.__dict__, "_fitted": None, "_fitting": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state, _fitting=Lock())

    def append(self, counts: sp.csr_array) -> None:
        """Add the counts (m, v) of documents, from ``weighting.count``."""
        self._parts.append(counts)
        self._fitted = None

    def renew(self, weighting: TermWeighting) -> None:
        """Take a weighting that knows further terms, in columns behind those there are."""
        self.weighting = weighting
        self._fitted = None

    @property
    def counts(self) -> sp.csr_array:
        """(n, v) counts of every row, dead ones included."""
        width = max((part.shape[1] for part in self._parts), default=0)
        parts = []
        for part in self._parts:
            # a part counted before the vocabulary grew is narrower
            parts.append(
                sp.csr_array((part.data, part.indices, part.indptr), (part.shape[0], width))
            )
        whole = sp.csr_array(sp.vstack(parts, format="csr")) if parts else sp.csr_array((0, width))
        self._parts = [whole] if parts else []
        return whole

    def search(
        self,
        text: str,
        *,
        k: int | None,
        live: LiveRows,
        admitted: NDArray[np.bool_] | None,
    ) -> tuple[Rows, NDArray[np.float64]]:
        """Return the k best rows that share a term with the text, and their scores."""
        index, query = self._index(live), self.weighting.query(text)
        rows, scores = index.search(
            query, k=k, admitted=live.mask if admitted is None else admitted
        )
        # the base is the same for every row, so it moves no one's place
        return rows, scores + self.weighting.base(query)

    def score(self, text: str, rows: Rows, *, live: LiveRows) -> NDArray[np.float64]:
        """Return (r,) the scores of the given rows."""
        index, query = self._index(live), self.weighting.query(text)
        return index.score(query, rows) + self.weighting.base(query)

    def scale(self, text: str, *, live: LiveRows) -> float:
        """Return ``TermWeighting.scale`` of the text, under the live documents' statistics."""
        self._index(live)
        return self.weighting.scale(self.weighting.query(text))

    def fitted(self, *, live: LiveRows) -> TermWeighting:
        """Return the weighting with the statistics of the live rows."""
        self._index(live)
        return self.weighting

    def _index(self, live: LiveRows) -> InvertedIndex:
        with self._fitting:
            if self._fitted is None or self._fitted[0] != live.generation:
                counts = self.counts
                whole = live.count == len(live)
                self.weighting.fit(counts if whole else sp.csr_array(counts[live.rows]))
                index = InvertedIndex.from_matrix(self.weighting.impacts(counts))
                self._fitted = live.generation, index
            return self._fitted[1]

    def keep(self, rows: Rows) -> WeightedIndex:
        """Return an index of the given rows alone, whose weighting knows their terms alone.

        What only other rows said is in neither the counts nor the vocabulary.
        """
        weighting, counts = self.weighting.compacted(sp.csr_array(self.counts[rows]))
        return WeightedIndex(weighting, counts)

    def rows(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Return the counts of the given rows (r,) as plain arrays."""
        return csr_arrays("bm25", sp.csr_array(self.counts[rows]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the counts as plain arrays."""
        return csr_arrays("bm25", self.counts)


def csr_arrays(name: str, matrix: sp.csr_array) -> dict[str, NDArray[Any]]:
    """Return a CSR matrix as arrays to store under ``name``; ``csr_of`` reads them back."""
    return {
        f"{name}.data": matrix.data,
        f"{name}.indices": matrix.indices.astype(np.int64),
        f"{name}.indptr": matrix.indptr.astype(np.int64),
        f"{name}.shape": np.array(matrix.shape, np.int64),
    }


def csr_of(name: str, arrays: Mapping[str, NDArray[Any]]) -> sp.csr_array:
    """Return the matrix that ``csr_arrays`` took apart."""
    parts = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
    rows, columns = arrays[f"{name}.shape"].tolist()
    return sp.csr_array(parts, shape=(rows, columns))
