"""Join ranked lists: by rank (RRF) or by normalised scores (weighted sum).

Pure functions over ``Ranking``; the frozen callables hold the settings, and take the
rankings by leg.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import InputError
from m3_retrievers.habits import guided
from m3_retrievers.types.hits import Ranking
from m3_retrievers.types.packed import Floats

Normalize: TypeAlias = Literal["min_max", "z_score"]


def rrf(
    rankings: Sequence[Ranking], *, k: float = 60, weights: Sequence[float] | None = None
) -> Ranking:
    """Return all documents by Σ w/(k + rank), rank from 1; a list without one adds nothing.

    Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual
    rank learning methods", SIGIR 2009; 60 is their k. weights: one a ranking, ≥ 0, 1 where
    none are given; a ranking of weight 0 is left out. Ties keep the order of first appearance.

    Raises InputError for k or weights out of range.

    >>> a, b = (Ranking(tuple(ids), np.zeros(2)) for ids in ("xy", "yz"))
    >>> rrf([a, b], k=0).ids, rrf([a, b], k=0).scores.tolist()
    (('y', 'x', 'z'), [1.5, 1.0, 0.5])
    """
    _check_k(k)
    shares = [1.0 / (k + np.arange(1.0, len(ranking) + 1)) for ranking in rankings]
    return _weigh(rankings, shares, weights, missing=[0.0] * len(rankings))


def weighted_sum(
    rankings: Sequence[Ranking],
    *,
    weights: Sequence[float] | None = None,
    normalize: Normalize | None = "min_max",
) -> Ranking:
    """Return all documents by Σ w·score, each list's scores normalised first.

    normalize: ``min_max``, ``z_score`` or None for the scores as they are. A document that a
    list lacks counts 0 there; under ``z_score``, where 0 is the list's mean, it counts as much
    as the list's last, since it did no better. weights: as for ``rrf``. Ties keep the order
    of first appearance.

    Raises InputError for weights out of range, an unknown normalisation, or NaN.

    >>> a = Ranking(("x", "y", "z"), np.array([9.0, 6.0, 5.0]))
    >>> b = Ranking(("y",), np.array([0.3]))
    >>> both = weighted_sum([a, b], weights=[1.0, 0.5])
    >>> both.ids, both.scores.tolist()
    (('x', 'y', 'z'), [1.0, 0.75, 0.0])
    """
    _check_normalize(normalize)
    shares = [_normalized(ranking.scores, normalize) for ranking in rankings]
    lowest = [
        float(share.min()) if normalize == "z_score" and len(share) else 0.0 for share in shares
    ]
    return _weigh(rankings, shares, weights, missing=lowest)


def min_max(scores: Floats) -> NDArray[np.float64]:
    """Return the scores (n,) stretched to 0..1; equal ones all become 1.

    >>> min_max(np.array([4.0, 3.0, 2.0])).tolist(), min_max(np.array([7.0])).tolist()
    ([1.0, 0.5, 0.0], [1.0])
    """
    values = _finite(scores)
    if not len(values):
        return values
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.ones_like(values)


def z_score(scores: Floats) -> NDArray[np.float64]:
    """Return the scores (n,) in standard deviations from their mean; equal ones all become 0.

    >>> z_score(np.array([3.0, 1.0])).tolist(), z_score(np.array([7.0, 7.0])).tolist()
    ([1.0, -1.0], [0.0, 0.0])
    """
    values = _finite(scores)
    if not len(values) or values.min() == values.max():
        return np.zeros_like(values)
    return np.asarray((values - values.mean()) / values.std())


@guided()
@dataclass(frozen=True, slots=True)
class ReciprocalRankFusion:
    """``rrf`` over legs by name; weights: leg → number, every leg of the call or None."""

    k: float = 60
    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        _check_k(self.k)
        _check_weights(self.weights)

    def __call__(self, rankings: Mapping[str, Ranking]) -> Ranking:
        weights = _by_leg(self.weights, rankings)
        return rrf(list(rankings.values()), k=self.k, weights=weights)

    def state(self) -> dict[str, Any]:
        """Return a JSON record for ``fusion_from_state``."""
        return {"kind": "rrf", "k": self.k, "weights": self.weights and dict(self.weights)}


@guided()
@dataclass(frozen=True, slots=True)
class WeightedSum:
    """``weighted_sum`` over legs by name; weights: leg → number, every leg of the call or None."""

    normalize: Normalize | None = "min_max"
    weights: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        _check_normalize(self.normalize)
        _check_weights(self.weights)

    def __call__(self, rankings: Mapping[str, Ranking]) -> Ranking:
        weights = _by_leg(self.weights, rankings)
        return weighted_sum(list(rankings.values()), weights=weights, normalize=self.normalize)

    def state(self) -> dict[str, Any]:
        """Return a JSON record for ``fusion_from_state``."""
        weights = self.weights and dict(self.weights)
        return {"kind": "weighted_sum", "normalize": self.normalize, "weights": weights}


def fusion_from_state(state: Mapping[str, Any]) -> ReciprocalRankFusion | WeightedSum:
    """Return the fusion a ``state()`` record describes.

    >>> fusion_from_state(ReciprocalRankFusion(k=10).state())
    ReciprocalRankFusion(k=10, weights=None)
    """
    kinds: dict[str, Any] = {"rrf": ReciprocalRankFusion, "weighted_sum": WeightedSum}
    options = dict(state)
    kind = options.pop("kind", None)
    if kind not in kinds:
        raise InputError(f"fusion expects a kind of {sorted(kinds)}, got {kind!r}.")
    made: ReciprocalRankFusion | WeightedSum = kinds[kind](**options)
    return made


def _weigh(
    rankings: Sequence[Ranking],
    shares: Sequence[NDArray[np.float64]],
    weights: Sequence[float] | None,
    *,
    missing: Sequence[float],
) -> Ranking:
    """Sum each document's weighted shares, one column a ranking, and sort."""
    if weights is not None and len(weights) != len(rankings):
        raise InputError(
            f"weights expects a number for each of {len(rankings)} rankings, got {len(weights)}."
        )
    if rankings:
        _check_weights(None if weights is None else dict(enumerate(weights)))
    legs = [leg for leg in range(len(rankings)) if weights is None or weights[leg] > 0]
    ids = tuple(dict.fromkeys(id for leg in legs for id in rankings[leg].ids))
    places = {id: place for place, id in enumerate(ids)}
    table = np.tile(np.array([missing[leg] for leg in legs]), (len(places), 1))
    for column, leg in enumerate(legs):
        # backwards, so that an id a foreign list repeats counts where it stands first
        rows = [places[id] for id in reversed(rankings[leg].ids)]
        table[rows, column] = shares[leg][::-1]
    factors = np.array([1.0 if weights is None else weights[leg] for leg in legs])
    # fsum rounds once, so documents that differ only in which list ranks them where do tie
    totals = np.array([math.fsum(row) for row in (table * factors).tolist()])
    order = np.argsort(-totals, kind="stable")
    return Ranking(tuple(ids[place] for place in order), totals[order])


def _normalized(scores: Floats, normalize: Normalize | None) -> NDArray[np.float64]:
    if normalize is None:
        return _finite(scores)
    return min_max(scores) if normalize == "min_max" else z_score(scores)


def _finite(scores: Floats) -> NDArray[np.float64]:
    values = np.asarray(scores, np.float64)
    if not np.all(np.isfinite(values)):
        raise InputError("Fusion expects finite scores, got NaN or infinity among them.")
    return values


def _by_leg(
    weights: Mapping[str, float] | None, rankings: Mapping[str, Ranking]
) -> list[float] | None:
    if weights is None or not rankings:
        return None
    if set(weights) != set(rankings):
        raise InputError(
            f"weights expects a number for each leg {sorted(rankings)}, got {sorted(weights)}."
        )
    return [weights[leg] for leg in rankings]


def _check_k(k: float) -> None:
    if not _is_number(k) or k < 0:
        raise InputError(f"k expects a finite number ≥ 0 (60 is usual), got {k!r}.")


def check_fusion(given: object) -> Any:
    """Return a fusion as it is; raises InputError for a name, a class or anything else."""
    if not callable(given) or isinstance(given, type):
        raise InputError(
            f"fusion expects ReciprocalRankFusion() or WeightedSum(), got {given!r:.80}. Make one, "
            "such as ReciprocalRankFusion(k=60)."
        )
    return given


def _check_weights(weights: Mapping[Any, float] | None) -> None:
    if weights is None:
        return
    if not isinstance(weights, Mapping):
        raise InputError(
            "weights expects a mapping with a number a leg or retriever, such as "
            f"{{'dense': 0.7, 'sparse': 0.3}}, got {weights!r:.60}. Name them; of retrievers= the "
            "first is 'retriever_1'."
        )
    for name, weight in weights.items():
        if not _is_number(weight) or weight < 0:
            raise InputError(f"weight {name!r} expects a finite number ≥ 0, got {weight!r}.")
    if not any(weights.values()):
        raise InputError(
            f"weights expects at least one above 0, got {dict(weights)}: nothing would be ranked."
        )


def _check_normalize(normalize: object) -> None:
    if normalize not in ("min_max", "z_score", None):
        raise InputError(f"normalize expects 'min_max', 'z_score' or None, got {normalize!r}.")


def _is_number(value: object) -> bool:
    real = isinstance(value, int | float | np.integer | np.floating)
    return real and not isinstance(value, bool) and math.isfinite(float(value))  # type: ignore[arg-type]
