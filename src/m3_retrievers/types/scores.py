"""Scores of pairs of texts, mode by mode."""

from __future__ import annotations

from dataclasses import dataclass

from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import HybridWeights


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of n pairs, five arrays (n,): FlagEmbedding's lists as named fields.

    dense, sparse, colbert: the three modes, unweighted. sparse_dense and
    colbert_sparse_dense: weighted sums divided by the sum of their own weights, as
    FlagEmbedding's ``compute_score`` reports them; None where the model lacks a part or its
    weights are all 0. hybrid: the weighted sum of the modes there are, not divided.
    """

    dense: Floats
    sparse: Floats | None
    colbert: Floats | None
    sparse_dense: Floats | None
    colbert_sparse_dense: Floats | None
    hybrid: Floats
    weights: HybridWeights

    def __len__(self) -> int:
        return len(self.dense)
