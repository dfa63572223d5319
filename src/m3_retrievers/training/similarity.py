"""Similarities of a step's queries and passages, with gradients, from packed tensors.

Nothing here is padded, and the sparse part never makes a (batch, length, vocabulary)
tensor: only the terms of the step's queries can match, and they are a few hundred columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from m3_retrievers.scoring import packed_maxsim
from m3_retrievers.training.losses import ModeScores


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What the model makes of n texts in training; a mode that is not trained is None.

    dense: (n, h) unit rows. weights, ids: (t,) term weights ≥ 0 and vocabulary ids of the
    tokens that may carry one, text after text, rows: (t,) the text each belongs to.
    vectors: (t', d) unit rows, text after text, between offsets (n + 1,).
    """

    count: int
    dense: Tensor | None = None
    weights: Tensor | None = None
    ids: Tensor | None = None
    rows: Tensor | None = None
    vectors: Tensor | None = None
    offsets: Tensor | None = None


def mode_scores(queries: Encoded, passages: Encoded) -> ModeScores:
    """Return the (q, d) similarities of each mode both sides have."""
    dense = sparse = colbert = None
    if queries.dense is not None and passages.dense is not None:
        dense = queries.dense @ passages.dense.T
    if queries.weights is not None and passages.weights is not None:
        sparse = _lexical(queries, passages)
    if queries.vectors is not None and passages.vectors is not None:
        assert queries.offsets is not None and passages.offsets is not None
        colbert = packed_maxsim(
            queries.vectors, queries.offsets, passages.vectors, passages.offsets
        )
    return ModeScores(dense, sparse, colbert)


def _lexical(queries: Encoded, passages: Encoded) -> Tensor:
    """Return (q, d) Σ w_q·w_d over shared terms; a term's weight is its largest in the text."""
    assert queries.ids is not None
    terms = torch.unique(queries.ids)  # (u,) sorted
    return _term_matrix(queries, terms) @ _term_matrix(passages, terms).T


def _term_matrix(texts: Encoded, terms: Tensor) -> Tensor:
    """Return (n, u) the largest weight of each term in each text, 0 where it has none."""
    assert texts.weights is not None and texts.ids is not None and texts.rows is not None
    matrix = texts.weights.new_zeros(texts.count * len(terms))
    if not len(terms):
        return matrix.view(texts.count, 0)
    column = torch.searchsorted(terms, texts.ids).clamp_(max=len(terms) - 1)
    known = terms[column] == texts.ids
    cell = texts.rows[known] * len(terms) + column[known]
    return matrix.scatter_reduce(0, cell, texts.weights[known], "amax").view(texts.count, -1)
