"""The linear layers of an encoder for inference: plain, packed for the processor, or in 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from m3_retrievers.encoder.precision import Precision
from m3_retrievers.scoring.packed_product import (
    Activation,
    PackedProduct,
    agrees,
    can_pack,
    in_blocks,
)

# Rows to columns: (t, in) to (t, out).
Linear: TypeAlias = Callable[[Tensor], Tensor]

_TINY, _LARGEST, _MIDDLE = 1e-12, 127, 128


class PlainLinear:
    """x·Wᵀ + b as PyTorch has it: the reference of the others, and what any device can do."""

    def __init__(self, weight: Tensor, bias: Tensor, *, activation: Activation = "none") -> None:
        self._weight, self._bias, self._activation = weight, bias, activation

    def __call__(self, rows: Tensor) -> Tensor:
        return activated(functional.linear(rows, self._weight, self._bias), self._activation)


class Int8Linear:
    """x·Wᵀ + b in 8 bits: a scale for each row of x, taken as it comes, and for each output.

    A scale for all of x would be set by its largest number: outlying dimensions of transformers
    (Dettmers et al., LLM.int8(), arXiv 2208.07339) would leave the others few bits.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, activation: Activation = "none") -> None:
        self._activation = activation
        self._scale = weight.abs().amax(dim=1).clamp(min=_TINY) / _LARGEST
        quantized = (weight / self._scale[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(quantized, None)
        self._zero = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = bias

    def __call__(self, rows: Tensor) -> Tensor:
        return in_blocks(self._product, rows)

    def _product(self, rows: Tensor) -> Tensor:
        scale = rows.abs().amax(dim=-1, keepdim=True).clamp(min=_TINY) / _LARGEST
        # unsigned around 128: what oneDNN multiplies fastest
        quantized = torch.div(rows, scale).round_().add_(_MIDDLE).to(torch.uint8)
        found = torch.ops.onednn.qlinear_pointwise(
            quantized, 1.0, _MIDDLE, self._weight, self._scale, self._zero,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return activated(torch.addcmul(self._bias, found, scale), self._activation)


def activated(rows: Tensor, activation: Activation) -> Tensor:
    """Return the activation of rows (t, out)."""
    return functional.gelu(rows) if activation == "gelu" else rows


def make_linear(
    weight: Tensor, bias: Tensor, *, precision: Precision, activation: Activation = "none"
) -> Linear:
    """Return the layer of a weight (out, in) and a bias (out,), on their device.

    activation: what follows it, without a reading of its own where that can be had. Neither tensor
    needs to be kept by the caller; a packed layer holds copies of its own.
    """
    if weight.device.type == "cpu":
        if precision == "int8":
            return Int8Linear(weight, bias, activation=activation)
        if can_pack(weight.dtype):
            return PackedProduct(weight, bias, activation=activation)
    return PlainLinear(weight, bias, activation=activation)


@cache
def can_quantize() -> bool:
    """Whether the layer in 8 bits is there, and near PyTorch's."""
    return agrees(Int8Linear, torch.float32, most=5e-2)
