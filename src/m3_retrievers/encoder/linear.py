"""A linear layer for inference, in the form its processor reads fastest.

PyTorch's own float32 product reorders nothing and is the slow path on x86: oneDNN reads a weight
that was reordered once 1.4 to 4 times as fast (measured on AVX-512, 14 to 2,000 rows), with
results that differ by 4e-7 of the largest. The operators are PyTorch's own, but private: they are
tried on a few numbers, and ``PlainLinear`` takes over where they are missing or wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from m3_retrievers.encoder.precision import Precision

# Rows to columns: (t, in) to (t, out), after which ``gelu`` may be taken.
Linear: TypeAlias = Callable[[Tensor], Tensor]

# Relative to the largest number: what rounding differs by, with room for long sums.
_CLOSE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


class PlainLinear:
    """x·Wᵀ + b as PyTorch has it: the reference of the others, and what any device can do."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.linear(rows, self._weight, self._bias)


class PackedLinear:
    """The same by oneDNN, over a weight reordered once; the plain weight is not kept."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        return _in_blocks(self._product, rows)

    def _product(self, rows: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, "none", [], ""
        )
        return found


class Int8Linear:
    """x·Wᵀ + b in 8 bits: a scale for each row of x, taken as it comes, and for each output.

    A scale for all of x would be set by its largest number: outlying dimensions of transformers
    (Dettmers et al., LLM.int8(), arXiv 2208.07339) would leave the others few bits.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._scale = weight.abs().amax(dim=1).clamp(min=_TINY) / _LARGEST
        quantized = (weight / self._scale[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(quantized, None)
        self._zero = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        return _in_blocks(self._product, rows)

    def _product(self, rows: Tensor) -> Tensor:
        scale = rows.abs().amax(dim=-1, keepdim=True).clamp(min=_TINY) / _LARGEST
        # unsigned around 128: what oneDNN multiplies fastest
        quantized = torch.div(rows, scale).round_().add_(_MIDDLE).to(torch.uint8)
        found = torch.ops.onednn.qlinear_pointwise(
            quantized, 1.0, _MIDDLE, self._weight, self._scale, self._zero,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return torch.addcmul(self._bias, found, scale)


_TINY, _LARGEST, _MIDDLE = 1e-12, 127, 128


def _in_blocks(product: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Return the product of rows (t, in), so many at a time, zeros behind the last ones."""
    parts = []
    for part in torch.split(rows, _BLOCK):
        missing = -len(part) % _MULTIPLE
        parts.append(product(functional.pad(part, (0, 0, 0, missing)) if missing else part))
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[: len(rows)]


# oneDNN keeps a product it made for each number of rows, over 1 MB each and 1,024 of them: a server
# grew by 1.2 GB. With these there are at most 32 for a weight's shape, and none is slower.
_BLOCK, _MULTIPLE = 512, 16


def make_linear(weight: Tensor, bias: Tensor, *, precision: Precision) -> Linear:
    """Return the layer of a weight (out, in) and a bias (out,), on their device.

    Neither needs to be kept by the caller; a packed layer holds copies of its own.
    """
    if weight.device.type == "cpu":
        if precision == "int8":
            return Int8Linear(weight, bias)
        if can_pack(weight.dtype):
            return PackedLinear(weight, bias)
    return PlainLinear(weight, bias)


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN's layer is there and gives what PyTorch's does, tried on a few numbers."""
    return dtype in _CLOSE and _agrees(PackedLinear, dtype, _CLOSE[dtype])


@cache
def can_quantize() -> bool:
    """Whether the layer in 8 bits is there, and near PyTorch's."""
    return _agrees(Int8Linear, torch.float32, 5e-2)


def _agrees(kind: type[PackedLinear | Int8Linear], dtype: torch.dtype, most: float) -> bool:
    made = torch.Generator().manual_seed(0)
    weight, bias, rows = (
        torch.randn(shape, generator=made).to(dtype) for shape in ((32, 48), (32,), (5, 48))
    )
    expected = PlainLinear(weight, bias)(rows)
    try:
        with torch.inference_mode():
            off = (kind(weight, bias)(rows) - expected).abs().max() / expected.abs().max()
    except (RuntimeError, AttributeError, NotImplementedError, TypeError):
        # what torch raises for an operator it lacks, or that has other arguments or no kernel here
        return False
    return bool(off <= most)
