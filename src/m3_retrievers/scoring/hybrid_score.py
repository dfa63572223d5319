"""The hybrid score: w_d·dense + w_s·lexical + w_c·ColBERT (BGE-M3 paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import InputError
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import HybridWeights


def contributions(
    scores: Mapping[str, Floats], weights: HybridWeights, scales: Mapping[str, float]
) -> dict[str, NDArray[np.float64]]:
    """Return each mode's weighted share of the hybrid score, arrays of one shape.

    scores: arrays by mode; ``sparse`` and ``bm25`` are both lexical and take the weight
    ``sparse``. scales: a factor a mode, 1 where none is given. A mode of weight 0 is left out.
    """
    weight_of = {
        "dense": weights.dense,
        "sparse": weights.sparse,
        "bm25": weights.sparse,
        "colbert": weights.colbert,
    }
    return {
        mode: weight_of[mode] * scales.get(mode, 1.0) * np.asarray(values, np.float64)
        for mode, values in scores.items()
        if weight_of[mode] > 0
    }


def hybrid(
    scores: Mapping[str, Floats],
    weights: HybridWeights,
    *,
    scales: Mapping[str, float] | None = None,
) -> NDArray[np.float64]:
    """Return w_d·dense + w_s·lexical + w_c·ColBERT, an array of the scores' shape.

    >>> parts = {"dense": np.array([0.5]), "sparse": np.array([0.2]), "colbert": np.array([0.7])}
    >>> hybrid(parts, HybridWeights(dense=0.4, sparse=0.2, colbert=0.4)).round(6).tolist()
    [0.52]
    """
    shares = contributions(scores, weights, scales or {})
    if not shares:
        raise InputError(
            f"hybrid expects a score for a mode with a weight above 0, got {sorted(scores)} with "
            f"{weights}. Give one of these modes a weight."
        )
    total: NDArray[np.float64] = np.sum(list(shares.values()), axis=0, dtype=np.float64)
    return total
