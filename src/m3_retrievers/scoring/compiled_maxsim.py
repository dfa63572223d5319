"""The largest inner products of late interaction, compiled: the kernel where numba is installed.

Vectors are widened in registers, and of all products only the largest of each document with each
query token is written. ``packed_maxsim`` is the plain way to the same numbers, which a test holds
this one equal to. Imported by ``largest_products`` alone, since it needs numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from m3_retrievers.scoring.compiling import compiled

# Products with so many query tokens are summed at once, for so many vectors: together they fill
# the 32 registers of AVX-512 and NEON, and a number that was read is used four times, or seven.
TOKENS = 7
_VECTORS = 4
# Vectors that one block of query tokens goes over before the next one does: they stay in cache.
_IN_CACHE = 32

# Sums in any order, so that they run side by side; NaN and infinity stay what they are.
_compiled = compiled(fastmath={"reassoc", "contract", "nsz", "arcp"})


def set_products(
    best: NDArray[np.float32],
    query: NDArray[np.float32],
    vectors: NDArray[Any],
    firsts: NDArray[np.int64],
    lasts: NDArray[np.int64],
) -> None:
    """Set ``best`` (s, i) to the largest inner products of s spans of vectors with a query (i, h).

    i: a multiple of ``TOKENS``. vectors: (n, h) float16 or float32, or (n, h + 4) int8, each
    followed by its scale, a float32. firsts, lasts: (s,), span s is vectors ``firsts[s]`` to
    ``lasts[s]``, at least one.
    """
    kept = vectors.view(np.uint16) if vectors.dtype == np.float16 else vectors.view()
    kept.flags.writeable = False  # the same function for arrays that may be written to
    _set_products(best, query, kept, firsts, lasts)


@_compiled
def _set_products(best: Any, query: Any, vectors: Any, firsts: Any, lasts: Any) -> None:
    best[:] = -np.inf
    for span in range(len(firsts)):
        for first in range(firsts[span], lasts[span], _IN_CACHE):
            rows = vectors[first : min(lasts[span], first + _IN_CACHE)]
            for token in range(0, len(query), TOKENS):
                into = best[span, token : token + TOKENS]
                _raise_to_products(into, query[token : token + TOKENS], rows)


@_compiled
def _raise_to_products(best: Any, query: Any, rows: Any) -> None:
    largest = _column(best.reshape(TOKENS, 1), 0)
    for row in range(0, len(rows), _VECTORS):
        largest = _larger(largest, _products(query, rows, row))
    for token in range(TOKENS):
        best[token] = largest[token]


@_compiled
def _products(query: Any, rows: Any, first: int) -> Any:
    """Return the largest products of the tokens with four rows, the last one again if it is it."""
    second, third, fourth = (
        min(first + 1, len(rows) - 1),
        min(first + 2, len(rows) - 1),
        min(first + 3, len(rows) - 1),
    )
    zero = np.float32(0)
    a = b = c = d = (zero, zero, zero, zero, zero, zero, zero)
    for at in range(query.shape[1]):
        column = _column(query, at)
        a = _add(a, _number(rows[first, at]), column)
        b = _add(b, _number(rows[second, at]), column)
        c = _add(c, _number(rows[third, at]), column)
        d = _add(d, _number(rows[fourth, at]), column)
    width = query.shape[1]
    return _larger(
        _larger(_times(a, _scale(rows, first, width)), _times(b, _scale(rows, second, width))),
        _larger(_times(c, _scale(rows, third, width)), _times(d, _scale(rows, fourth, width))),
    )


# Tuples of seven stay in registers, where an array would not.


@_compiled
def _column(query: Any, at: int) -> Any:
    q = query
    return q[0, at], q[1, at], q[2, at], q[3, at], q[4, at], q[5, at], q[6, at]


@_compiled
def _add(s: Any, x: Any, q: Any) -> Any:
    return (
        s[0] + x * q[0],
        s[1] + x * q[1],
        s[2] + x * q[2],
        s[3] + x * q[3],
        s[4] + x * q[4],
        s[5] + x * q[5],
        s[6] + x * q[6],
    )


@_compiled
def _times(s: Any, x: Any) -> Any:
    return s[0] * x, s[1] * x, s[2] * x, s[3] * x, s[4] * x, s[5] * x, s[6] * x


@_compiled
def _larger(s: Any, t: Any) -> Any:
    return (
        max(s[0], t[0]),
        max(s[1], t[1]),
        max(s[2], t[2]),
        max(s[3], t[3]),
        max(s[4], t[4]),
        max(s[5], t[5]),
        max(s[6], t[6]),
    )


@intrinsic  # type: ignore[untyped-decorator]
def _number(_: Any, kept: Any) -> Any:
    """Return what a kept number stands for, without its scale: of float16 the bits are kept."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        (number,) = arguments
        if kept == types.uint16:
            return builder.fpext(builder.bitcast(number, ir.HalfType()), ir.FloatType())
        return builder.sitofp(number, ir.FloatType()) if kept == types.int8 else number

    return types.float32(kept), generate


def _scale(rows: Any, row: int, width: int) -> Any:
    """Return what the numbers of a row are multiplied by."""


@overload(_scale, inline="always")  # type: ignore[untyped-decorator]
def _scale_of(rows: Any, row: int, width: int) -> Any:  # noqa: ARG001
    if rows.dtype == types.int8:

        def scale(rows: Any, row: int, width: int) -> Any:
            return rows[row][width : width + 4].view(np.float32)[0]
    else:

        def scale(rows: Any, row: int, width: int) -> Any:  # noqa: ARG001
            return np.float32(1)

    return scale
