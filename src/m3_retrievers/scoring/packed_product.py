"""A product of many rows with one matrix, in the form its processor reads fastest: the kernel.

oneDNN reads a matrix that was reordered once 1.15 to 4 times as fast as PyTorch's own float32
product reads it as it is (AVX-512, 2,000 to 14 rows), with results that differ by 4e-7 of the
largest. The operators are PyTorch's own, but private: they are tried on a few numbers, and
``torch.nn.functional.linear``, which defines the product, takes over where they are missing or
wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# oneDNN keeps a product it made for each number of rows, over 1 MB each and 1,024 of them: a server
# grew by 1.2 GB. With these there are at most 32 for a matrix's shape, and none is slower.
BLOCK_ROWS, _MULTIPLE = 512, 16
# Relative to the largest number: what rounding differs by, with room for long sums.
_CLOSE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


class PackedProduct:
    """x·Wᵀ + b over a matrix W (out, in) reordered once; the plain one is not kept.

    at_once: rows of one call of oneDNN's.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, *, at_once: int = BLOCK_ROWS
    ) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self._bias, self._at_once = bias, at_once

    def __call__(self, rows: Tensor) -> Tensor:
        """Return (t, out) of rows (t, in)."""
        return in_blocks(self._product, rows, at_once=self._at_once)

    def _product(self, rows: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, "none", [], ""
        )
        return found


def in_blocks(
    product: Callable[[Tensor], Tensor], rows: Tensor, *, at_once: int = BLOCK_ROWS
) -> Tensor:
    """Return the product of rows (t, in), so many at a time, zeros behind the last ones."""
    if len(rows) <= at_once and not len(rows) % _MULTIPLE:
        return product(rows)  # most calls of MaxSim: nothing to cut, nothing to put together
    parts = []
    for part in torch.split(rows, at_once):
        missing = -len(part) % _MULTIPLE
        parts.append(product(functional.pad(part, (0, 0, 0, missing)) if missing else part))
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[: len(rows)]


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN's product is there and gives what PyTorch's does, tried on a few numbers."""
    return dtype in _CLOSE and agrees(PackedProduct, dtype, most=_CLOSE[dtype])


def agrees(
    made: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]],
    dtype: torch.dtype,
    *,
    most: float,
) -> bool:
    """Whether a product differs from PyTorch's by at most a share of the largest number."""
    seed = torch.Generator().manual_seed(0)
    weight, bias, rows = (
        torch.randn(shape, generator=seed).to(dtype) for shape in ((32, 48), (32,), (5, 48))
    )
    expected = functional.linear(rows, weight, bias)
    try:
        with torch.inference_mode():
            off: Any = (made(weight, bias)(rows) - expected).abs().max() / expected.abs().max()
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        # what torch raises for an operator it lacks, or that has other arguments or no kernel here
        return False
    return bool(off <= most)
