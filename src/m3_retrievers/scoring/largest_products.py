"""The largest products of documents' vectors with a query's, compiled, on the free processors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.scoring.crowd import crowd
from m3_retrievers.types.packed import offsets_of

# See ``compiled_maxsim.set_products``.
Kernel: TypeAlias = Callable[..., None]

# Vectors that are taken together, which may have come from a file: with 384 float16 100 MB.
_VECTORS_AT_ONCE = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Vectors of documents where they lie: rows ``firsts[s]`` to ``lasts[s]`` of an array.

    vectors: (n, h) float16 or float32, or (n, h + 4) int8, each followed by its scale, a float32.
    documents: (s,) which document each span belongs to; it may have others elsewhere.
    """

    vectors: NDArray[Any]
    firsts: NDArray[np.integer[Any]]
    lasts: NDArray[np.integer[Any]]
    documents: NDArray[np.integer[Any]]


@cache
def kernel() -> tuple[Kernel, int] | None:
    """Return the compiled kernel, and what its query tokens are a multiple of; None without numba.

    The first use in an environment compiles it, in about a second.
    """
    try:
        from m3_retrievers.scoring import compiled_maxsim
    except ImportError:  # no numba, or none that goes with this NumPy
        return None
    return compiled_maxsim.set_products, compiled_maxsim.TOKENS


def largest_products(
    query: NDArray[np.float32], spans: Iterable[Spans], *, documents: int
) -> NDArray[np.float32]:
    """Return (d, i) the largest product of each document with each vector of a query (i, h).

    Of a document without vectors it is -infinity. Only where there is a ``kernel``.
    """
    found = kernel()
    assert found is not None
    set_products, multiple = found
    padded = np.zeros((-(-len(query) // multiple) * multiple, query.shape[1]), np.float32)
    padded[: len(query)] = query
    largest = np.full((documents, len(padded)), -np.inf, np.float32)
    for group in _groups(spans):
        owners = np.concatenate([one.documents for one in group])
        best = np.empty((len(owners), len(padded)), np.float32)
        run = _Work(set_products, padded, group, best)
        crowd().side_by_side(run, run.shares(crowd().parts))
        np.maximum.at(largest, owners, best)
    return largest[:, : len(query)]


class _Work:
    """The spans of a group, which are numbered through, and where their products go."""

    def __init__(
        self, kernel: Kernel, query: NDArray[np.float32], group: list[Spans], best: NDArray[Any]
    ) -> None:
        self._kernel, self._query, self._best = kernel, query, best
        starts = offsets_of([len(one.firsts) for one in group]).tolist()
        self._group = list(zip(group, starts, strict=False))

    def shares(self, count: int) -> list[tuple[int, int]]:
        """Cut the spans into shares of about as many vectors."""
        ends = np.cumsum(np.concatenate([one.lasts - one.firsts for one, _ in self._group]))
        wanted = np.linspace(0, ends[-1], count + 1)[1:-1]
        cuts = [0, *np.searchsorted(ends, wanted).tolist(), len(ends)]
        return [(low, high) for low, high in pairwise(cuts) if low < high]

    def __call__(self, share: tuple[int, int]) -> None:
        low, high = share
        for one, start in self._group:
            first, last = max(low - start, 0), min(high - start, len(one.firsts))
            if first < last:
                best = self._best[start + first : start + last]
                spans = one.firsts[first:last], one.lasts[first:last]
                self._kernel(best, self._query, one.vectors, *spans)


def _groups(spans: Iterable[Spans]) -> Iterator[list[Spans]]:
    """Yield some at a time."""
    group: list[Spans] = []
    vectors = 0
    for one in spans:
        group.append(one)
        vectors += int((one.lasts - one.firsts).sum())
        if vectors > _VECTORS_AT_ONCE:
            yield group
            group, vectors = [], 0
    if group:
        yield group
