"""Adding up posting lists: the kernel of lexical search, plain and compiled.

Both add the products term after term, in float64, so that they give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.types.packed import Floats

_csc_matvec: Callable[..., None] | None
try:  # what scipy multiplies a matrix by a vector with; private, so it may go
    from scipy.sparse._sparsetools import csc_matvec as _csc_matvec
except ImportError:
    _csc_matvec = None

Rows = NDArray[np.integer[Any]]
AddPostings: TypeAlias = Callable[..., None]

# Compiling takes about a second, once, which smaller indexes never get back.
_COMPILED_FROM = 20_000
_ONE = np.ones(1)


def add_postings(
    sums: NDArray[np.float64],
    rows: Rows,
    weights: Floats,
    firsts: Rows,
    lasts: Rows,
    factors: NDArray[np.float64],
) -> None:
    """Add ``factors[i] · weights[p]`` to ``sums[rows[p]]`` for each posting p of each term i.

    Term i owns the postings ``firsts[i]`` to ``lasts[i]``, all of different rows. Compiled
    where numba is installed and there is much to add.

    >>> sums = np.zeros(2)
    >>> rows, weights = np.array([0, 1, 1], np.int32), np.array([1.0, 2.0, 3.0])
    >>> add_postings(sums, rows, weights, np.array([0, 2]), np.array([2, 3]), np.array([1.0, 10.0]))
    >>> sums.tolist()
    [1.0, 32.0]
    """
    work = int((lasts - firsts).sum())
    add = compiled() if work >= _COMPILED_FROM else None
    (add or plain)(sums, rows, weights, firsts, lasts, factors)


def plain(
    sums: NDArray[np.float64],
    rows: Rows,
    weights: Floats,
    firsts: Rows,
    lasts: Rows,
    factors: NDArray[np.float64],
) -> None:
    """Add postings by numpy and scipy, which defines what the compiled kernel gives."""
    for first, last, factor in zip(firsts.tolist(), lasts.tolist(), factors, strict=True):
        _scatter(sums, rows[first:last], weights[first:last] * factor)


def _scatter(sums: NDArray[np.float64], rows: Rows, products: NDArray[np.float64]) -> None:
    # 100,000 rows of 64 terms, Zipf-like; 12 query terms, 231,000 postings: 0.40 ms by scipy's
    # product with a matrix of one column, where np.add.at takes 0.73, sums[rows] += a third
    # more, and one bincount over gathered lists twice as long
    if _csc_matvec is None:
        np.add.at(sums, rows, products)
    else:
        ends = np.array([0, len(rows)], rows.dtype)
        _csc_matvec(len(sums), 1, ends, rows, products, _ONE, sums)


@cache
def compiled() -> AddPostings | None:
    """Return the same compiled by numba, a fifth of the time; None without numba."""
    if find_spec("numba") is None:
        return None
    from numba import njit

    # Not fastmath, which may round a product and a sum as one. Unsigned positions spare a test
    # for negative ones, and with it two thirds of the time.
    @njit(nogil=True)
    def add(sums: Any, rows: Any, weights: Any, firsts: Any, lasts: Any, factors: Any) -> None:
        for term in range(len(firsts)):
            factor = factors[term]
            posting, last = np.uint64(firsts[term]), np.uint64(lasts[term])
            while posting < last:
                sums[np.uint64(rows[posting])] += weights[posting] * factor
                posting += np.uint64(1)

    made: AddPostings = add
    return made
