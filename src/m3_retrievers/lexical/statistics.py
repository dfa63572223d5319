"""What BM25 takes from a collection: its average length, and each term's idf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

Variant: TypeAlias = Literal["okapi", "plus", "l"]
Idf: TypeAlias = Literal["lucene", "rank_bm25"]


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """What a collection says: average length, and idf and largest count of each term (v,)."""

    average_length: float
    idf: NDArray[np.float64]
    largest: NDArray[np.float64]

    @classmethod
    def of(cls, counts: sp.csr_array, *, variant: Variant, idf: Idf, epsilon: float) -> Statistics:
        """Return the statistics of the documents' term counts (n, v)."""
        size, width = counts.shape
        if not counts.nnz:
            return cls(0.0, np.zeros(width), np.zeros(width))
        containing = np.bincount(counts.indices, minlength=width)
        weights = (
            _lucene(containing, size)
            if idf == "lucene"
            else _by_variant(containing, size, variant=variant, epsilon=epsilon)
        )
        largest = np.zeros(width)
        np.maximum.at(largest, counts.indices, counts.data)
        return cls(float(counts.sum()) / size, weights, largest)

    def only(self, columns: NDArray[np.integer[Any]]) -> Statistics:
        """Return the statistics of some terms, in that order; 0 for a term they do not know."""
        return Statistics(self.average_length, pick(self.idf, columns), pick(self.largest, columns))


NO_STATISTICS = Statistics(0.0, np.zeros(0), np.zeros(0))


def pick(values: NDArray[np.float64], columns: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return the values at the columns, 0 for columns newer than the values."""
    known = columns < len(values)
    picked = np.zeros(len(columns))
    if np.all(known):
        picked[:] = values[columns]
    else:
        picked[known] = values[columns[known]]
    return picked


def _lucene(containing: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    idf = np.log1p((size - containing + 0.5) / (containing + 0.5))
    return np.where(containing > 0, idf, 0.0)


def _by_variant(
    containing: NDArray[np.int64], size: int, *, variant: Variant, epsilon: float
) -> NDArray[np.float64]:
    """Return rank_bm25's idf of the variant, 0 for a term that no document holds."""
    idf = np.zeros(len(containing))
    held = containing > 0
    n = containing[held].astype(np.float64)
    if variant == "okapi":
        values = np.log(size - n + 0.5) - np.log(n + 0.5)
        values[values < 0] = epsilon * values.mean()
    elif variant == "plus":
        values = np.log((size + 1) / n)
    else:
        values = np.log(size + 1) - np.log(n + 0.5)
    idf[held] = values
    return idf
