"""What a processor multiplies and reads at most, and how long a model's products take at that rate.

A row of a table that names it says how far a result is from what this machine can do at all.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.transformer import Shape, Transformer

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_BYTES = {"fp32": 4, "bf16": 2}
_ROUNDS = 9


@cache
def multiplied(precision: str) -> float:
    """Return the floating-point operations a second of a product of 2,048 × 1,024 × 1,024."""
    dtype = _DTYPES[precision]
    rows, weights = torch.randn(2_048, 1_024).to(dtype), torch.randn(1_024, 1_024).to(dtype)
    best = max(_rate(lambda: rows @ weights), _rate(lambda: torch.mm(rows, weights.T)))
    return 2 * 2_048 * 1_024 * 1_024 * best


@cache
def read(threads: int) -> float:
    """Return the bytes a second that so many threads read together from memory."""
    parts = np.array_split(np.ones(200_000_000, np.float32), threads)

    def scan() -> None:
        readers = [threading.Thread(target=part.max) for part in parts]
        for one in readers:
            one.start()
        for one in readers:
            one.join()

    return sum(part.nbytes for part in parts) * _rate(scan)


def least_ms(encoder: M3Encoder, tokens: Sequence[int], precision: str, *, threads: int) -> float:
    """Return the milliseconds that all products of texts of so many tokens take at the least.

    Weights are read once, at most as fast as memory gives them.
    """
    backbone = encoder.checkpoint.backbone
    assert isinstance(backbone, Transformer)
    weights = linear_weights(backbone.shape)
    attention = sum(4 * length**2 * backbone.shape.hidden for length in tokens)
    operations = 2 * weights * sum(tokens) + attention * backbone.shape.layers
    multiplying = operations / multiplied(precision)
    return 1e3 * max(multiplying, weights * _BYTES[precision] / read(threads))


def linear_weights(shape: Shape) -> int:
    """Return how many weights the linear layers of an encoder have."""
    return shape.layers * shape.hidden * (4 * shape.hidden + 2 * shape.inner)


def _rate(work: Callable[[], object]) -> float:
    """Return how often a second it is done."""
    work()
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1 / statistics.median(times)
