"""In which numbers a model computes, and which of them is fastest at no loss that shows.

``"bf16"`` keeps 8 bits of each number and ``"int8"`` the weights of linear layers in 8 bits with a
scale each; whatever the precision, outputs are float32. What each costs in nDCG@10 is measured in
benchmarks/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import torch

from m3_retrievers.errors import InputError

Precision: TypeAlias = Literal["fp32", "bf16", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
# The number type of everything but the weights of linear layers, which int8 holds in 8 bits.
DTYPES: Mapping[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.float32,
}
# Processors that multiply bfloat16 themselves; others would widen each number first.
_MULTIPLY_BF16 = ("amx_bf16", "avx512_bf16")


def choose_precision(
    precision: Precision | Literal["auto"] | None, device: torch.device
) -> Precision:
    """Return the precision asked for; None is fp16 on CUDA and fp32 elsewhere.

    ``"auto"`` is the fastest of this device that costs less than 0.001 nDCG@10: fp16 on CUDA, bf16
    on a processor that multiplies it, else fp32. It goes by what the processor can do and not by
    the clock, so that it is the same at every start.
    """
    if precision is not None and precision not in ("auto", *PRECISIONS):
        raise InputError(
            f"precision expects 'auto', one of {PRECISIONS} or None, got {precision!r:.60}."
        )
    if precision == "int8" and device.type != "cpu":
        raise InputError(
            f"precision='int8' expects the processor, got device {str(device)!r}. Use 'fp16'."
        )
    if precision is not None and precision != "auto":
        return precision
    if device.type == "cuda":
        return "fp16"
    return "bf16" if precision == "auto" and _multiplies_bf16(device) else "fp32"


def why(precision: Precision, device: torch.device) -> str:
    """Return in one sentence why ``"auto"`` is this precision on this device."""
    if device.type == "cuda":
        return "an accelerator multiplies float16 many times as fast as float32"
    if precision == "bf16":
        return "this processor multiplies bfloat16, which costs less than 0.001 nDCG@10"
    return "this device has no fast bfloat16"


def _multiplies_bf16(device: torch.device) -> bool:
    found = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(found.get(name, False) for name in _MULTIPLY_BF16)
