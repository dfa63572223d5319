"""Vectors in int8, and exact inner products of them with one query: the kernel of a first look.

Compiled where numba is installed, at the pace of memory; by torch elsewhere, at half of it.
``rows.astype(int32) @ query`` is the plain way to the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from m3_retrievers.types.packed import Floats

# The largest number in a row.
LARGEST = 127

Norms: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
Integers = NDArray[np.integer[Any]]
# Takes rows (n, h) int8 and a query (h,); returns (n,) int32.
IntProducts: TypeAlias = Callable[[NDArray[np.int8], Integers], NDArray[np.int32]]


def rounded(
    vectors: Floats, *, largest: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], Norms]:
    """Return vectors (n, h) as whole numbers up to ``largest`` of a scale (n,) each, and norms.

    The norms are those of what the whole numbers stand for, and of what rounding took away,
    (n,) each. A vector of zeros has the scale 1.

    >>> whole, scales, (kept, lost) = rounded(np.array([[1.0, -0.3]]), largest=10)
    >>> whole.tolist(), scales.round(3).tolist(), lost.round(3).tolist()
    ([[10, -3]], [0.10000000149011612], [0.0])
    """
    given = torch.from_numpy(np.asarray(vectors, np.float32))
    highest = given.abs().amax(dim=1, keepdim=True)
    scales = torch.where(highest > 0, highest / largest, 1.0)
    whole = (given / scales).round_().clamp_(-largest, largest)
    back = whole * scales
    norms = back.norm(dim=1).numpy(), (given - back).norm(dim=1).numpy()
    return whole.to(torch.int32).numpy(), scales[:, 0].numpy(), norms


def int_products(width: int) -> tuple[IntProducts, int] | None:
    """Return a function for rows of this width, and the largest number its queries may hold.

    None where this machine does not multiply int8 exactly, or torch does not do it any more.
    """
    compiled = _compiled()
    if compiled is not None:
        # 16 bits a number of the query, and a sum of h products in 31
        return compiled, min(32767, (2**31 - 1) // (LARGEST * max(1, width)))
    return (by_torch, LARGEST) if _torch_holds() else None


def by_torch(rows: NDArray[np.int8], query: Integers) -> NDArray[np.int32]:
    """Return (n,) inner products of int8 rows (n, h) with an int8 query (h,)."""
    column = torch.from_numpy(query.astype(np.int8))[:, None]
    products: NDArray[np.int32] = torch._int_mm(torch.from_numpy(rows), column).numpy()[:, 0]
    return products


@cache
def _compiled() -> IntProducts | None:
    if find_spec("numba") is None:
        return None
    from numba import njit

    # 16,384 × 1,024 in 0.5 ms on one core, by torch in 1.7
    @njit(nogil=True)
    def fill(rows: Any, query: Any, products: Any) -> None:
        for row in range(rows.shape[0]):
            total = np.int32(0)
            for column in range(rows.shape[1]):
                total += np.int32(rows[row, column]) * np.int32(query[column])
            products[row] = total

    def products(rows: NDArray[np.int8], query: Integers) -> NDArray[np.int32]:
        found = np.empty(len(rows), np.int32)
        fill(rows, query.astype(np.int16), found)
        return found

    return products


@cache
def _torch_holds() -> bool:
    """Return whether torch's products are exact: before AVX512-VNNI large ones saturate."""
    rng = np.random.default_rng(0)
    rows = rng.choice(np.array([-LARGEST, LARGEST, 1], np.int8), (65, 384))
    rows[0] = LARGEST
    query = np.full(384, LARGEST, np.int8)
    try:
        found = by_torch(rows, query)
    except (AttributeError, RuntimeError):  # a private operation, which may go
        return False
    return np.array_equal(found, rows.astype(np.int32) @ query.astype(np.int32))
