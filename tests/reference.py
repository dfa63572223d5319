"""The readable specification: every score as a plain loop over lists of floats.

Slow on purpose. No numpy, no batches, nothing shared with the package, so that agreement
says something. Vectors are lists of floats, sparse rows dicts {term id: weight}, ColBERT
vectors lists of vectors, one a token.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

Vector = Sequence[float]
Vectors = Sequence[Vector]
Terms = Mapping[int, float]


def dot(a: Vector, b: Vector) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def unit(vector: Vector) -> list[float]:
    """Scale to length 1; a zero vector stays as it is."""
    length = math.sqrt(dot(vector, vector))
    return [x / length for x in vector] if length > 0 else list(vector)


def linear(state: Vector, weight: Vectors, bias: Vector) -> list[float]:
    return [dot(row, state) + b for row, b in zip(weight, bias, strict=True)]


# --- from hidden states to representations -------------------------------------------------


def dense_vector(
    states: Vectors, mask: Sequence[bool], *, pooling: str = "cls", truncate_dim: int | None = None
) -> list[float]:
    """The first state, or the mean of the true tokens' states; cut; then length 1."""
    if pooling == "cls":
        pooled = list(states[0])
    else:
        true = [state for state, is_token in zip(states, mask, strict=True) if is_token]
        pooled = [math.fsum(column) / len(true) for column in zip(*true, strict=True)]
    return unit(pooled[:truncate_dim])


def term_weights(
    states: Vectors,
    ids: Sequence[int],
    mask: Sequence[bool],
    *,
    weight: Vectors,
    bias: Vector,
    dropped: Collection[int],
) -> dict[int, float]:
    """relu of the sparse head at each token; of equal ids the largest; only what is above 0."""
    weights: dict[int, float] = {}
    for state, id, is_token in zip(states, ids, mask, strict=True):
        value = linear(state, weight, bias)[0]
        if is_token and id not in dropped and value > weights.get(id, 0.0):
            weights[id] = value
    return weights


def token_vectors(
    states: Vectors, mask: Sequence[bool], *, weight: Vectors, bias: Vector
) -> list[list[float]]:
    """The ColBERT head at each true token but the first (CLS), each of length 1."""
    tokens = [state for state, is_token in zip(states, mask, strict=True) if is_token]
    return [unit(linear(state, weight, bias)) for state in tokens[1:]]


# --- scores of one query and one document --------------------------------------------------


def dense_score(query: Vector, document: Vector) -> float:
    return dot(query, document)


def lexical_score(query: Terms, document: Terms) -> float:
    return math.fsum(weight * document[term] for term, weight in query.items() if term in document)


def maxsim(
    query: Vectors,
    document: Vectors,
    *,
    query_mask: Sequence[bool] | None = None,
    document_mask: Sequence[bool] | None = None,
) -> float:
    """The mean over query tokens of the largest similarity; masked tokens do not take part.

    0 where one side has no token.
    """
    queries = _unmasked(query, query_mask)
    documents = _unmasked(document, document_mask)
    if not queries or not documents:
        return 0.0
    best = [max(dot(q, d) for d in documents) for q in queries]
    return math.fsum(best) / len(best)


def _unmasked(vectors: Vectors, mask: Sequence[bool] | None) -> list[Vector]:
    if mask is None:
        return list(vectors)
    return [vector for vector, is_token in zip(vectors, mask, strict=True) if is_token]


def hybrid(
    dense: float, sparse: float, colbert: float, weights: tuple[float, float, float]
) -> float:
    """Weighted sum; weights in the order dense, sparse, ColBERT."""
    return weights[0] * dense + weights[1] * sparse + weights[2] * colbert


def five_scores(
    dense: float, sparse: float, colbert: float, weights: tuple[float, float, float]
) -> dict[str, float]:
    """FlagEmbedding's five: each sum divided by the sum of its own weights."""
    w_dense, w_sparse, w_colbert = weights
    return {
        "dense": dense,
        "sparse": sparse,
        "colbert": colbert,
        "sparse_dense": (w_sparse * sparse + w_dense * dense) / (w_sparse + w_dense),
        "colbert_sparse_dense": (w_colbert * colbert + w_sparse * sparse + w_dense * dense)
        / (w_colbert + w_sparse + w_dense),
    }


# --- ranked lists ---------------------------------------------------------------------------


def rrf(rankings: Sequence[Sequence[str]], *, k: float = 60) -> list[tuple[str, float]]:
    """Each list adds 1/(k + rank), rank from 1."""
    totals: dict[str, list[float]] = {}
    for ranking in rankings:
        for rank, id in enumerate(ranking, start=1):
            totals.setdefault(id, []).append(1 / (k + rank))
    return _descending({id: math.fsum(parts) for id, parts in totals.items()})


def min_max_sum(
    rankings: Sequence[Mapping[str, float]], weights: Sequence[float]
) -> list[tuple[str, float]]:
    """Stretch each list's scores to 0..1 (all equal: 1), then sum them weighted."""
    totals: dict[str, list[float]] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        low, high = min(ranking.values()), max(ranking.values())
        for id, score in ranking.items():
            share = (score - low) / (high - low) if high > low else 1.0
            totals.setdefault(id, []).append(weight * share)
    return _descending({id: math.fsum(parts) for id, parts in totals.items()})


def _descending(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """Best first; Python's sort is stable, so ties keep their order of insertion."""
    return sorted(scores.items(), key=lambda item: -item[1])


# --- search ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """One text's three representations."""

    dense: Vector
    sparse: Terms = field(default_factory=dict)
    colbert: Vectors = ()


def full_scan(
    query: Text,
    documents: Mapping[str, Text],
    *,
    weights: tuple[float, float, float],
    k: int,
) -> list[tuple[str, float]]:
    """Score every document by the hybrid sum and return the k best."""
    scores = {
        id: hybrid(
            dense_score(query.dense, document.dense),
            lexical_score(query.sparse, document.sparse),
            maxsim(query.colbert, document.colbert),
            weights,
        )
        for id, document in documents.items()
    }
    return _descending(scores)[:k]
