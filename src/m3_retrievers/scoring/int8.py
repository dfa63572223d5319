"""Vectors in int8, and exact inner products of them with queries: the kernel of a first look.

Compiled where numba is installed; else, and for many queries, by torch where the processor
multiplies int8 (VNNI, AMX).
``queries.astype(int32) @ rows.astype(int32).T`` is the plain way to the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from m3_retrievers.types.packed import Floats

# The largest number in a row.
LARGEST = 127
# A number of a query is one of int8 this many times, and another of int8.
_HIGH = 128
# The largest number that two of int8 make in that way.
LARGEST_IN_TWO = LARGEST * _HIGH + _HIGH // 2 - 1

# From so many queries on torch is faster: of 100,000 × 1,024 rows one takes 25 ms by torch on two
# cores of an AMD EPYC (Zen 4), 10 on an Intel Xeon with AMX, and 4.4 compiled on one core; 64 take
# 45 to 75 by torch.
_MANY = 6

Norms: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
Integers = NDArray[np.integer[Any]]
# Takes queries (q, h); returns what takes rows (n, h) int8 and returns (q, n) int32.
IntProducts: TypeAlias = Callable[[Integers], Callable[[NDArray[np.int8]], NDArray[np.int32]]]


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


@dataclass(frozen=True, slots=True)
class IntKernel:
    """A way to multiply rows of a width.

    products_with: takes queries (q, h) of numbers up to ``largest``. has_team: whether the threads
    of PyTorch's share it; otherwise the one that calls it computes.
    """

    products_with: IntProducts
    largest: int
    has_team: bool


def int_products(width: int, *, queries: int = 1) -> IntKernel | None:
    """Return the faster way to multiply rows of this width with so many queries.

    None where this machine does not multiply int8 exactly, or torch does not do it any more.
    """
    ways = compiled_products(width), torch_products(width)
    # torch takes a dozen queries in the time of one
    return next(filter(None, ways if queries < _MANY else ways[::-1]), None)


def torch_products(width: int) -> IntKernel | None:
    """Return torch's way where it is exact, and not ten times as slow as the compiled one."""
    if not _torch_holds() or not (_multiplies_int8() or _compiled() is None):
        return None
    return IntKernel(by_torch, min(LARGEST_IN_TWO, _most(width)), has_team=True)


def compiled_products(width: int) -> IntKernel | None:
    """Return the way that numba compiled; None without it."""
    compiled = _compiled()
    if compiled is None:
        return None
    return IntKernel(compiled, min(32_767, _most(width)), has_team=False)


def _most(width: int) -> int:
    """Return the largest number whose products of a row sum up in 31 bits."""
    return (2**31 - 1) // (LARGEST * max(1, width))


def by_torch(queries: Integers) -> Callable[[NDArray[np.int8]], NDArray[np.int32]]:
    """Return what takes int8 rows (n, h) and returns (q, n) products with queries (q, h).

    queries: numbers up to LARGEST_IN_TWO. Each is two columns of int8: a second one costs
    nothing while rows come from memory.
    """
    halves = in_two(queries)
    # a transposed column of one number has strides that oneDNN reads wrongly
    columns = torch.empty(halves.shape[::-1], dtype=torch.int8).copy_(torch.from_numpy(halves).T)

    def products(rows: NDArray[np.int8]) -> NDArray[np.int32]:
        return put_together(torch._int_mm(torch.from_numpy(rows), columns).numpy().T)

    return products


def in_two(queries: Integers) -> NDArray[np.int8]:
    """Return queries (q, h), numbers up to LARGEST_IN_TWO, as twice as many of int8 (2q, h).

    >>> in_two(np.array([[16_319, -200]])).tolist()
    [[127, -2], [63, 56]]
    """
    high = (queries + _HIGH // 2) // _HIGH
    return np.concatenate([high, queries - high * _HIGH]).astype(np.int8)


def put_together(products: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the products (q, n) of queries whose two parts have these (2q, n), in their place."""
    whole, second = np.split(products, 2)
    # where the first part alone is beyond 31 bits it wraps, and the sum wraps back
    whole *= np.int32(_HIGH)
    whole += second
    return whole


@cache
def _compiled() -> IntProducts | None:
    try:
        from m3_retrievers.scoring.compiled_int8 import fill
    except ImportError:  # no numba, or none that goes with this NumPy
        return None

    def products_with(queries: Integers) -> Callable[[NDArray[np.int8]], NDArray[np.int32]]:
        asked = queries.astype(np.int16)

        def products(rows: NDArray[np.int8]) -> NDArray[np.int32]:
            found = np.empty((len(asked), len(rows)), np.int32)
            for query, into in zip(asked, found, strict=True):
                fill(into, rows, query)
            return found

        return products

    return products_with


def _multiplies_int8() -> bool:
    """Return whether the processor has instructions for products of int8."""
    try:
        return bool(torch.cpu._is_vnni_supported())
    except AttributeError:  # a private question
        return False


@cache
def _torch_holds() -> bool:
    """Return whether torch's products are exact: before AVX512-VNNI large ones saturate."""
    rng = np.random.default_rng(0)
    rows = rng.choice(np.array([-LARGEST, LARGEST, 1], np.int8), (65, 384))
    rows[0] = LARGEST
    queries = np.array([[LARGEST_IN_TWO], [-LARGEST_IN_TWO]], np.int32).repeat(384, axis=1)
    try:
        found = by_torch(queries)(rows)
    except (AttributeError, RuntimeError):  # a private operation, which may go
        return False
    return np.array_equal(found, queries @ rows.astype(np.int32).T)
