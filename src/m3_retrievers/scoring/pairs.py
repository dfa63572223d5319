"""Scores of pairs of texts, equal to FlagEmbedding's ``compute_score``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import check_same_width
from m3_retrievers.scoring.hybrid_score import hybrid
from m3_retrievers.scoring.late_interaction import maxsim
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import HybridWeights
from m3_retrievers.types.representations import Representations
from m3_retrievers.types.scores import Scores


def pair_scores(
    queries: Representations,
    documents: Representations,
    q_rows: NDArray[np.int64],
    d_rows: NDArray[np.int64],
    *,
    weights: HybridWeights,
) -> Scores:
    """Return the scores of the pairs (queries[q_rows[n]], documents[d_rows[n]]), arrays (n,).

    A mode that either side lacks is None, and left out of ``hybrid``.
    """
    parts: dict[str, Floats] = {}
    if queries.dense is not None and documents.dense is not None:
        check_same_width("dense", queries.dense.shape[1], documents.dense.shape[1])
        parts["dense"] = np.einsum("nh,nh->n", queries.dense[q_rows], documents.dense[d_rows])
    if queries.sparse is not None and documents.sparse is not None:
        check_same_width("sparse", queries.sparse.shape[1], documents.sparse.shape[1])
        shared = queries.sparse[q_rows].multiply(documents.sparse[d_rows])
        parts["sparse"] = np.asarray(shared.sum(axis=1), np.float32)
    if queries.colbert is not None and documents.colbert is not None:
        parts["colbert"] = np.zeros(len(q_rows), np.float32)
        for row in np.unique(q_rows):
            at = np.flatnonzero(q_rows == row)
            # each document once: a product of matrices may round equal rows differently
            different, places = np.unique(d_rows[at], return_inverse=True)
            best = maxsim(queries.colbert.take([row]), documents.colbert.take(different))
            parts["colbert"][at] = best[0][places]
    return Scores(
        dense=parts["dense"],
        sparse=parts.get("sparse"),
        colbert=parts.get("colbert"),
        sparse_dense=_mean(parts, ("sparse", "dense"), weights),
        colbert_sparse_dense=_mean(parts, ("colbert", "sparse", "dense"), weights),
        hybrid=hybrid(parts, weights),
        weights=weights,
    )


def _mean(
    parts: Mapping[str, Floats], modes: tuple[str, ...], weights: HybridWeights
) -> Floats | None:
    """Return the weighted mean of some modes; None if one is missing or all weigh 0."""
    total = sum(getattr(weights, mode) for mode in modes)
    if total <= 0 or not all(mode in parts for mode in modes):
        return None
    mean: Floats = hybrid({mode: parts[mode] for mode in modes}, weights) / total
    return mean
