"""MaxSim of one query with document vectors that are kept in int8, without widening them.

``late_interaction.maxsim`` of the widened vectors is the plain way to the same scores, which a
test holds this one equal to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from m3_retrievers.scoring.int8 import in_two, put_together, rounded, torch_products
from m3_retrievers.types.packed import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Int8Texts:
    """Vectors (j, h) of some texts, scales (j, 1), and how many vectors each text has (d,)."""

    vectors: NDArray[np.int8]
    scales: NDArray[np.float32]
    lengths: NDArray[np.int64]


def multiplies_int8(width: int) -> bool:
    """Return whether vectors of this width are better multiplied in int8 than widened."""
    return torch_products(width) is not None


def maxsim_of_int8(query: Floats, blocks: Iterable[Int8Texts]) -> NDArray[np.float32]:
    """Return (d,) MaxSim of a query (i, h) with the texts of all blocks, in order.

    The query is rounded to 15 bits a number; beyond that products are exact. A text without
    vectors scores 0. Only where ``multiplies_int8`` says so.

    >>> query = np.array([[1.0, 0.5], [0.0, 1.0]], np.float32)
    >>> scales = np.array([[1 / 127], [2 / 127]], np.float32)
    >>> text = Int8Texts(np.array([[127, 0], [0, -127]], np.int8), scales, np.array([2, 0]))
    >>> maxsim_of_int8(query, [text]).round(3).tolist() if multiplies_int8(2) else [0.5, 0.0]
    [0.5, 0.0]
    """
    kernel = torch_products(query.shape[1])
    assert kernel is not None  # multiplies_int8 saw to it
    integers, q_scales, _ = rounded(query, largest=kernel.largest)
    halves = torch.from_numpy(in_two(integers))
    weights = q_scales / np.float32(len(query))
    # not as a product, nor down the columns: how those are summed depends on how many texts
    # there are, and equal texts would no longer tie
    found = [(_best(halves, block) * weights).sum(axis=1) for block in blocks]
    return np.concatenate([np.zeros(0, np.float32), *found])


def _best(halves: torch.Tensor, block: Int8Texts) -> NDArray[np.float32]:
    """Return (d, i) the largest product of each text with each query token; 0 for an empty text."""
    best = np.zeros((len(block.lengths), len(halves) // 2), np.float32)
    filled = np.flatnonzero(block.lengths)
    if len(filled):
        # tokens stand in columns: what follows goes along rows, in half the time
        both = torch._int_mm(halves, torch.from_numpy(block.vectors).T)
        similarities = put_together(both.numpy()).astype(np.float32)
        similarities *= block.scales.T
        starts = (np.cumsum(block.lengths) - block.lengths)[filled]
        best[filled] = np.maximum.reduceat(similarities, starts, axis=1).T
    return best
