"""Late interaction (MaxSim) over packed token vectors.

There is one MaxSim, for retrieval, reranking and training: it works on packed vectors, so
there is no padding that could win a maximum. Arithmetic of the BGE-M3 paper (arXiv 2402.03216,
section 3.2), equal to FlagEmbedding's ``colbert_score``.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3_retrievers.checks import check_same_width
from m3_retrievers.scoring.crowd import crowd
from m3_retrievers.scoring.token_products import columns_of, token_products
from m3_retrievers.types.packed import Floats, MultiVectors

# Similarities (j × i) held at once; 2^24 float32 are 64 MiB.
_SIMILARITIES_AT_ONCE = 1 << 24


def maxsim(queries: MultiVectors, documents: MultiVectors) -> NDArray[np.float32]:
    """Return (q, d) late interaction: (1/n_q) Σ_i max_j q_i·d_j, in -1 to 1.

    A query or document without vectors scores 0. float16 vectors are widened first.

    >>> query = MultiVectors.from_rows([np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)])
    >>> docs = MultiVectors.from_rows([np.array([[-0.5, 0.75]], np.float32)])
    >>> maxsim(query, docs).tolist()
    [[0.125]]
    """
    check_same_width("ColBERT", queries.dimension, documents.dimension)
    scores = np.zeros((len(queries), len(documents)), np.float32)
    for first, last in _document_blocks(documents.offsets, width=len(queries.vectors)):
        rows = documents.vectors[documents.offsets[first] : documents.offsets[last]]
        scores[:, first:last] = maxsim_of_pieces(
            queries, [rows], lengths=documents.lengths[first:last]
        )
    return scores


def maxsim_of_pieces(
    queries: MultiVectors, pieces: Iterable[Floats], *, lengths: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return (q, d) MaxSim of documents that lie in pieces, one behind the other.

    pieces: arrays (·, h), float16 or float32, each read once; together they are the documents'
    vectors in order. lengths: (d,) vectors a document.
    """
    scores = np.zeros((len(queries), len(lengths)), np.float32)
    filled, total = np.flatnonzero(lengths), int(lengths.sum())
    if not total or not len(queries.vectors):
        return scores
    q_vectors = torch.from_numpy(queries.vectors.astype(np.float32))
    starts = (np.cumsum(lengths) - lengths)[filled]

    def best() -> Floats:  # (q, d') of the documents that are not empty
        similarities = token_products(q_vectors, pieces, rows=total)  # (j, i)
        # empty documents have no segment here; torch's segment_reduce takes 2.5 times as long
        largest = np.maximum.reduceat(similarities, starts, axis=0)  # (d', i)
        by_token = torch.from_numpy(np.ascontiguousarray(largest.T))
        return _segments(by_token, torch.from_numpy(queries.offsets), "mean").numpy()

    scores[:, filled] = crowd().on_one_processor(best)
    return scores


def packed_maxsim(
    q_vectors: Tensor, q_offsets: Tensor, d_vectors: Tensor, d_offsets: Tensor
) -> Tensor:
    """Return (q, d) MaxSim of packed tensors, differentiable.

    q_vectors (i, h) with q_offsets (q + 1,); d_vectors (j, h) with d_offsets (d + 1,).
    """
    similarities = d_vectors @ columns_of(q_vectors)  # (j, i'), all tokens of all texts
    best = _segments(similarities, d_offsets, "max")  # (d, i')
    return _segments(best[:, : len(q_vectors)].T.contiguous(), q_offsets, "mean")  # (q, d)


def _segments(values: Tensor, offsets: Tensor, reduce: str) -> Tensor:
    """Reduce axis 0 over the segments between offsets; an empty segment gives 0."""
    reduced = torch.segment_reduce(values, reduce, offsets=offsets, axis=0, initial=None)
    empty = (offsets.diff() == 0).unsqueeze(1)
    return reduced.masked_fill(empty, 0.0)


def _document_blocks(offsets: NDArray[np.int64], *, width: int) -> list[tuple[int, int]]:
    """Cut the documents into runs whose similarities fit into memory at once."""
    limit = max(1, _SIMILARITIES_AT_ONCE // max(1, width))
    blocks, first = [], 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + limit, side="right")) - 1
        last = max(last, first + 1)
        blocks.append((first, last))
        first = last
    return blocks
