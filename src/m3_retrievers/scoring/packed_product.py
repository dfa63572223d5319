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
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Activation: TypeAlias = Literal["none", "gelu"]

# oneDNN keeps a product it made for each number of rows, over 1 MB each and 1,024 of them: a server
# grew by 1.2 GB. With these steps there are at most 44 for a matrix's shape.
_STEP, _FEW_ROWS, _LARGE_STEP = 16, 512, 128
# Rows of one call. Four of 512 rows, put together, take 1.3 to 3 times as long in bfloat16 as one.
BLOCK_ROWS = 2_048
# Relative to the largest number: what rounding differs by, with room for long sums.
_CLOSE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


class PackedProduct:
    """x·Wᵀ + b over a matrix W (out, in) reordered once; the plain one is not kept.

    activation: applied to each sum before it is written, ``"gelu"`` as its error function has it.
    at_once: rows of one call of oneDNN's.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        activation: Activation = "none",
        at_once: int = BLOCK_ROWS,
    ) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self._bias, self._at_once = bias, at_once
        # "none" is the algorithm of GELU that approximates nothing
        self._after: tuple[str, list[Any], str] = (
            activation,
            [],
            "none" if activation == "gelu" else "",
        )

    def __call__(self, rows: Tensor) -> Tensor:
        """Return (t, out) of rows (t, in)."""
        return in_blocks(self._product, rows, at_once=self._at_once)

    def _product(self, rows: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, *self._after
        )
        return found


def whole_rows(rows: int) -> int:
    """Return how many rows a product takes at least so many in: none are added to those."""
    step = _STEP if rows <= _FEW_ROWS else _LARGE_STEP
    return -(-rows // step) * step


def in_blocks(
    product: Callable[[Tensor], Tensor], rows: Tensor, *, at_once: int = BLOCK_ROWS
) -> Tensor:
    """Return the product of rows (t, in), so many at a time, zeros behind the last ones."""
    if len(rows) <= at_once and len(rows) == whole_rows(len(rows)):
        return product(rows)  # most calls: nothing to cut, nothing to put together
    parts = []
    for part in torch.split(rows, at_once):
        missing = whole_rows(len(part)) - len(part)
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
