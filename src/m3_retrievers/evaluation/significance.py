"""Whether one run is better than another, query by query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from m3_retrievers.errors import InputError
from m3_retrievers.evaluation.metrics import interval
from m3_retrievers.evaluation.report import Evaluation

_RESAMPLES = 9999
# Signs drawn at once; 2^20 float64 are 8 MiB.
_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Comparison:
    """difference: mean of second − first; interval: its 95 % bootstrap interval; p_value: of a
    paired permutation test, two-sided; wins, losses: queries on which the second is better, worse.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    wins: int
    losses: int


def compare(
    first: Evaluation,
    second: Evaluation,
    *,
    mode: str = "all",
    second_mode: str | None = None,
    measure: str = "nDCG@10",
    seed: int = 0,
) -> Comparison:
    """Return how much better the second is than the first, over the same queries.

    second_mode: the second's mode, where it is another. Raises InputError where the two were
    not run on the same queries, or lack the mode or the measure.
    """
    if first.query_ids != second.query_ids:
        raise InputError(
            f"compare expects two runs over the same queries, got {first.caption()} and "
            f"{second.caption()}"
        )
    difference = _values(second, second_mode or mode, measure) - _values(first, mode, measure)
    p_value = 1.0
    if np.any(difference):
        test = stats.permutation_test(
            (difference,),
            np.mean,
            permutation_type="samples",
            n_resamples=_RESAMPLES,
            batch=max(1, _AT_ONCE // len(difference)),
            rng=np.random.default_rng(seed),
            vectorized=True,
        )
        p_value = float(test.pvalue)
    return Comparison(
        difference=float(difference.mean()),
        interval=interval(difference, seed=seed, samples=_RESAMPLES),
        p_value=p_value,
        wins=int((difference > 0).sum()),
        losses=int((difference < 0).sum()),
    )


def _values(one: Evaluation, mode: str, measure: str) -> NDArray[np.float64]:
    if mode not in one.values or measure not in one.values[mode]:
        known = sorted(next(iter(one.values.values())))
        raise InputError(
            f"compare expects a mode of {list(one.values)} and a measure of {known}, got "
            f"{mode!r} and {measure!r}."
        )
    return one.values[mode][measure]
