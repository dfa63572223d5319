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
from m3_retrievers.scoring.largest_products import Spans, kernel, largest_products
from m3_retrievers.scoring.token_products import columns_of, token_products
from m3_retrievers.types.packed import Floats, MultiVectors

# Numbers of document vectors that are worth loading numba for, which takes half a second, and the
# most query vectors: beyond that a product of matrices is as fast.
_COMPILED_FROM = 1 << 22
_COMPILED_TOKENS = 128
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
    if compiles(queries, vectors=len(documents.vectors)):
        offsets, filled = documents.offsets, np.flatnonzero(documents.lengths)
        kept = documents.vectors
        vectors = np.ascontiguousarray(kept, np.float16 if kept.dtype == np.float16 else np.float32)
        spans = Spans(vectors, offsets[filled], offsets[filled + 1], filled)
        return maxsim_of_spans(queries, [spans], lengths=documents.lengths)
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
    total = int(lengths.sum())
    starts = (np.cumsum(lengths) - lengths)[lengths > 0]

    def largest() -> Floats:  # (d', i) of the documents that are not empty
        query = torch.from_numpy(queries.vectors.astype(np.float32))
        similarities = token_products(query, pieces, rows=total)  # (j, i)
        # empty documents have no segment here; torch's segment_reduce takes 2.5 times as long
        return np.maximum.reduceat(similarities, starts, axis=0)

    if not total or not len(queries.vectors):
        return np.zeros((len(queries), len(lengths)), np.float32)
    return _means(queries, crowd().on_one_processor(largest), lengths)


def maxsim_of_spans(
    queries: MultiVectors, spans: Iterable[Spans], *, lengths: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return (q, d) MaxSim of documents wherever they lie, compiled: where ``compiles`` says so.

    lengths: (d,) vectors a document.
    """
    q_vectors = queries.vectors.astype(np.float32)
    largest = largest_products(q_vectors, spans, documents=len(lengths))
    return _means(queries, largest[lengths > 0], lengths)


def compiles(queries: MultiVectors, *, vectors: int) -> bool:
    """Return whether so many document vectors are worth what numba compiles, and it is there."""
    enough = vectors * queries.dimension >= max(1, _COMPILED_FROM)
    few_tokens = 0 < len(queries.vectors) <= _COMPILED_TOKENS
    return enough and few_tokens and kernel() is not None


def _means(queries: MultiVectors, largest: Floats, lengths: NDArray[np.int64]) -> Floats:
    """Return (q, d): the mean of each query's tokens' products (d', i) with filled documents."""
    scores = np.zeros((len(queries), len(lengths)), np.float32)
    by_token = torch.from_numpy(np.ascontiguousarray(largest.T))
    means = _segments(by_token, torch.from_numpy(queries.offsets), "mean")
    scores[:, lengths > 0] = means.numpy()
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
