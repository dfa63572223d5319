"""Similarities of a step's queries and passages, with gradients, from packed tensors.

Nothing here is padded, and the sparse part never makes a (batch, length, vocabulary)
tensor: only the terms of the step's queries can match, and they are a few hundred columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from m3_retrievers.scoring.late_interaction import packed_maxsim
from m3_retrievers.training.losses import ModeScores


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Term weights (t,) ≥ 0 of the tokens that may carry one, their vocabulary ids (t,), and
    the text (t,) each belongs to. In no order; a term may occur often in a text.
    """

    weights: Tensor
    ids: Tensor
    rows: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TokenVectors:
    """Unit vectors (t, d), text after text, between offsets (n + 1,)."""

    vectors: Tensor
    offsets: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What the model makes of ``count`` texts in training; None for a mode that is not trained.

    dense: (n, h) unit rows.
    """

    count: int
    dense: Tensor | None = None
    terms: Terms | None = None
    colbert: TokenVectors | None = None


def mode_scores(queries: Encoded, passages: Encoded) -> ModeScores:
    """Return the (q, d) similarities of each mode both sides have."""
    dense = sparse = colbert = None
    if queries.dense is not None and passages.dense is not None:
        dense = queries.dense @ passages.dense.T
    if queries.terms is not None and passages.terms is not None:
        # (u,) sorted; what no query holds cannot match
        known = torch.unique(queries.terms.ids)
        sparse = term_matrix(queries.terms, known, queries.count) @ (
            term_matrix(passages.terms, known, passages.count).T
        )
    if queries.colbert is not None and passages.colbert is not None:
        colbert = packed_maxsim(
            queries.colbert.vectors,
            queries.colbert.offsets,
            passages.colbert.vectors,
            passages.colbert.offsets,
        )
    return ModeScores(dense, sparse, colbert)


def term_matrix(terms: Terms, known: Tensor, count: int) -> Tensor:
    """Return (n, u) the largest weight of each known term in each text, 0 where it has none.

    known: (u,) vocabulary ids, sorted.
    """
    matrix = terms.weights.new_zeros(count * len(known))
    if not len(known):
        return matrix.view(count, 0)
    column = torch.searchsorted(known, terms.ids).clamp_(max=len(known) - 1)
    found = known[column] == terms.ids
    cell = terms.rows[found] * len(known) + column[found]
    return matrix.scatter_reduce(0, cell, terms.weights[found], "amax").view(count, -1)
