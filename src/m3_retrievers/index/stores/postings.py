"""Adding up posting lists: the kernel of lexical search, plain and compiled.

Both add the products term after term, in float64, so that they give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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

# Importing numba takes 0.3 s, and compiling a second, once: smaller indexes never get them back.
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
    """Return the same compiled by numba; None without it."""
    try:
        from m3_retrievers.index.stores import compiled_postings
    except ImportError:  # no numba, or none that goes with this NumPy
        return None
    made: AddPostings = compiled_postings.add
    return made
