"""Measures, by ir-measures, and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import InputError
from m3_retrievers.evaluation.report import Run
from m3_retrievers.lazy import require_package

MEASURES = ("nDCG@10", "R@100", "RR@10")
_SAMPLES = 2000


def measure(
    run: Run, qrels: Mapping[str, Mapping[str, int]], measures: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Return (q,) values a measure, in the order of the run's queries.

    A query for which nothing was retrieved counts 0. Raises InputError for a measure that
    ir-measures does not know.
    """
    require_package("ir-measures", module="ir_measures", extra="evaluate", purpose="Evaluating")
    import ir_measures

    try:
        known = {name: ir_measures.parse_measure(name) for name in measures}
    except (NameError, ValueError) as error:
        raise InputError(
            f"measures expects names such as {MEASURES}, got {list(measures)!r} ({error})."
        ) from error
    scored = {query: dict(zip(ids, scores, strict=True)) for query, (ids, scores) in run.items()}
    judged = {query: dict(qrels[query]) for query in run}
    row = {query: at for at, query in enumerate(run)}
    values = {name: np.zeros(len(run)) for name in known}
    name_of = {one: name for name, one in known.items()}
    for found in ir_measures.iter_calc(list(known.values()), judged, scored):
        values[name_of[found.measure]][row[found.query_id]] = found.value
    return values


def interval(
    values: NDArray[np.float64], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the bootstrap confidence interval of the mean of (q,) values.

    >>> interval(np.array([0.5, 0.5]))
    (0.5, 0.5)
    """
    rng = np.random.default_rng(seed)
    means = np.array(
        [values[rng.integers(len(values), size=len(values))].mean() for _ in range(_SAMPLES)]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
