"""Reorder any texts by M3's scores: for candidates that come from somewhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from m3_retrievers import scoring
from m3_retrievers.checks import check_texts
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.distinct import distinct_texts
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import HybridWeights, check_weights
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations

COLBERT_ONLY = HybridWeights(dense=0.0, sparse=0.0, colbert=1.0)


@dataclass(frozen=True, slots=True)
class Reranked:
    """The place of one text: its position in the input, its score, each mode's own score."""

    index: int
    score: float
    scores: Mapping[str, float] = field(default_factory=dict)


def rerank(
    encoder: Encoder,
    query: str,
    texts: Sequence[str],
    *,
    weights: HybridWeights | None = None,
) -> list[Reranked]:
    """Return the texts' places, best first; ties keep the input's order.

    weights: None is the model's own. A mode of weight 0 is not computed; a mode that the
    model lacks is left out. ``scores`` holds each computed mode, and ``hybrid``, their
    weighted sum, if there are several.

    Raises MissingHeadError if the model has none of the weighted modes.
    """
    weights = check_weights(weights, default=encoder.default_weights)
    outputs = reranking_outputs(encoder, weights)
    asked = encoder.encode_query(query, outputs=outputs)
    checked = check_texts(texts)
    given = encoder.encode_documents(checked, outputs=outputs)
    return reranked(asked, given, checked, weights=weights)


def reranked(
    asked: Representations,
    given: Representations,
    texts: Sequence[str],
    *,
    weights: HybridWeights,
) -> list[Reranked]:
    """Return what ``rerank`` does, of a query and texts that were encoded already."""
    if not texts:
        return []
    outputs = given.outputs
    # Each text is scored once, and the score given to all its places: a product of matrices may
    # round equal rows differently, and a tie would no longer keep the input's order.
    _, rows = distinct_texts(texts)
    _, first = np.unique(rows, return_index=True)
    once = given[first]
    parts: dict[str, Floats] = {
        mode: scoring.by_mode(mode, asked, once)[0][rows] for mode in outputs
    }
    total = scoring.hybrid(parts, weights)
    named: dict[str, Floats] = parts if len(parts) == 1 else {**parts, "hybrid": total}
    order = np.argsort(-total, kind="stable")
    return [
        Reranked(
            index=int(row),
            score=float(total[row]),
            scores={mode: float(values[row]) for mode, values in named.items()},
        )
        for row in order
    ]


def reranking_outputs(encoder: Encoder, weights: HybridWeights) -> tuple[Output, ...]:
    """Return the modes that count and that the model has; if it has none, those that count."""
    weighted = tuple(mode for mode in ALL_OUTPUTS if getattr(weights, mode) > 0)
    return tuple(mode for mode in weighted if mode in encoder.outputs) or weighted
