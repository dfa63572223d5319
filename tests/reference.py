"""The readable specification: every score as a plain loop over lists of floats.

Slow on purpose. No numpy, no batches, nothing shared with the package, so that agreement
says something. Vectors are lists of floats, sparse rows dicts {term id: weight}, ColBERT
vectors lists of vectors, one a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
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


# --- training: scores as rows, one row a query -----------------------------------------------


def largest_weights(tokens: Sequence[tuple[int, float]]) -> dict[int, float]:
    """The largest weight of each id in one text, given as (id, weight) pairs."""
    largest: dict[int, float] = {}
    for id, weight in tokens:
        largest[id] = max(weight, largest.get(id, 0.0))
    return largest


def log_softmax(scores: Vector) -> list[float]:
    top = max(scores)
    log_sum = top + math.log(math.fsum(math.exp(score - top) for score in scores))
    return [score - log_sum for score in scores]


def softmax(scores: Vector) -> list[float]:
    return [math.exp(log_share) for log_share in log_softmax(scores)]


def info_nce(scores: Vectors, targets: Sequence[int]) -> float:
    """The mean over queries of −log of the share that softmax gives the positive."""
    rows = zip(scores, targets, strict=True)
    return _mean([-log_softmax(row)[target] for row, target in rows])


def cross_entropy(scores: Vectors, shares: Vectors) -> float:
    """The mean over queries of −Σ share · log softmax(score): kl_div and self-distillation."""
    rows = zip(scores, shares, strict=True)
    return _mean([-dot(share, log_softmax(row)) for row, share in rows])


def m3_kd_loss(scores: Vectors, targets: Sequence[int], shares: Vectors) -> float:
    """Each member of a group, by its share, against all but the members before it."""
    losses = []
    for row, first, share in zip(scores, targets, shares, strict=True):
        for member, part in enumerate(share):
            left = [*row[:first], *row[first + member :]]  # the member now stands at ``first``
            losses.append(-part * log_softmax(left)[first])
    return math.fsum(losses) / len(scores)


def ensemble(modes: Mapping[str, Vectors], weights: Mapping[str, float]) -> list[list[float]]:
    """The weighted sum of the modes, cell by cell."""
    first = next(iter(modes.values()))
    return [
        [math.fsum(weights[name] * modes[name][q][d] for name in modes) for d in range(len(row))]
        for q, row in enumerate(first)
    ]


def m3_loss(
    similarities: Mapping[str, Vectors],
    targets: Sequence[int],
    *,
    shares: Vectors | None = None,
    kind: str = "kl_div",
    own_shares: Vectors | None = None,
) -> dict[str, float]:
    """All of M3's loss with the paper's constants: temperature 0.02, weights 1, 0.3, 1.

    similarities: dense, sparse and colbert. shares: an outside teacher's, a group a row.
    own_shares: softmax of the ensemble, a constant, where the modes learn from it.
    """
    modes = {
        name: [[one / 0.02 for one in row] for row in rows] for name, rows in similarities.items()
    }
    modes["ensemble"] = ensemble(modes, {"dense": 1.0, "sparse": 0.3, "colbert": 1.0})
    losses = {name: contrast(rows, targets, shares, kind) for name, rows in modes.items()}
    total = losses["dense"] + 0.1 * losses["sparse"] + losses["colbert"] + losses["ensemble"]
    losses["total"] = total / 4
    if own_shares is not None:
        for name in similarities:
            losses[f"distill_{name}"] = cross_entropy(modes[name], own_shares)
        taught = losses["distill_dense"] + 0.1 * losses["distill_sparse"]
        taught = (taught + losses["distill_colbert"]) / 3
        losses["total"] = (losses["total"] + taught) / 2
    return losses


def contrast(scores: Vectors, targets: Sequence[int], shares: Vectors | None, kind: str) -> float:
    """One mode's loss: InfoNCE; with kl_div the group's as well; or m3_kd_loss instead."""
    if shares is None:
        return info_nce(scores, targets)
    if kind == "m3_kd_loss":
        return m3_kd_loss(scores, targets, shares)
    rows = zip(scores, targets, shares, strict=True)
    groups = [row[target : target + len(share)] for row, target, share in rows]
    return cross_entropy(groups, shares) + info_nce(scores, targets)


def slopes(
    function: Callable[[list[list[float]]], float], point: Vectors, *, step: float = 1e-6
) -> list[list[float]]:
    """The derivative of a function by each number of a matrix, by central differences."""
    derivatives = [[0.0] * len(row) for row in point]
    for r, row in enumerate(point):
        for c in range(len(row)):
            up, down = ([list(one) for one in point] for _ in range(2))
            up[r][c] += step
            down[r][c] -= step
            derivatives[r][c] = (function(up) - function(down)) / (2 * step)
    return derivatives


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


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
