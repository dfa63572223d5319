"""Measures, by ir-measures, and how sure they are."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import require_package
from m3_retrievers.errors import InputError
from m3_retrievers.evaluation.trec import RankedRun, to_column

MEASURES = ("nDCG@10", "R@100", "RR@10")
# What a measure without a cutoff (AP, RR) looks at: TREC's own depth.
_UNCUT = 1000
# Resampled values held at once; 2^20 float64 are 8 MiB.
_AT_ONCE = 1 << 20


def measure(
    run: RankedRun, qrels: Mapping[str, Mapping[str, int]], measures: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Return (q,) values a measure, in the order of the run's queries.

    Documents count in the order of the run. A query for which nothing was retrieved, or nothing
    is relevant, counts 0. Raises InputError for a measure that ir-measures does not know.
    """
    known = _parsed(measures)
    import ir_measures

    # Places, not scores: trec_eval compares float32 and puts equal scores in the order of their
    # ids, falling, and the provider of RR@10 rising. Places leave nothing to decide.
    # Ids as in a file: its C library ends them at a NUL, and crashes on a lone surrogate.
    placed = {
        to_column(query): {to_column(id): float(-place) for place, id in enumerate(ids)}
        for query, (ids, _) in run.items()
    }
    judged = {
        to_column(query): {to_column(id): grade for id, grade in qrels[query].items()}
        for query in run
    }
    row = {query: at for at, query in enumerate(placed)}
    values = {name: np.zeros(len(run)) for name in known}
    name_of = {one: name for name, one in known.items()}
    for found in ir_measures.iter_calc(list(known.values()), judged, placed):
        values[name_of[found.measure]][row[found.query_id]] = found.value
    return values


def reach(measures: Sequence[str]) -> int:
    """Return how many documents a query the measures look at; 1000 for one without a cutoff.

    Raises InputError for a measure that ir-measures does not know.

    >>> reach(["nDCG@10", "R@200"]), reach(["AP"])
    (200, 1000)
    """
    return max(int(one.params.get("cutoff", _UNCUT)) for one in _parsed(measures).values())


def _parsed(measures: Sequence[str]) -> dict[str, Any]:
    require_package("ir-measures", module="ir_measures", extra="evaluate", purpose="Evaluating")
    if isinstance(measures, str) or not measures:
        raise InputError(f"measures expects a list of names such as {MEASURES}, got {measures!r}.")
    try:
        return {name: _parsed_one(name) for name in measures}
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f"measures expects names such as {MEASURES}, got {list(measures)!r} ({error})."
        ) from error


def _parsed_one(name: str) -> Any:
    """Return a measure such as ``nDCG(dcg='exp-log2')@10``.

    As ir_measures.parse_measure does, whose ast.Num is gone from Python 3.14.
    """
    from ir_measures.measures import registry

    node = ast.parse(name, mode="eval").body
    at = None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        at, node = _value(node.right), node.left
    params: dict[str, Any] = {}
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg is None:
                raise ValueError("** is not understood")
            params[keyword.arg] = _value(keyword.value)
        if node.args:
            raise ValueError("parameters need names")
        node = node.func
    if not isinstance(node, ast.Name) or node.id not in registry:
        raise ValueError(f"measure not found: {ast.unparse(node)}")
    known = registry[node.id]
    return known(**params if at is None else params | {known.AT_PARAM: at})


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant | ast.Dict):
        return ast.literal_eval(node)
    raise ValueError(f"not a value: {ast.unparse(node)}")


def interval(
    values: NDArray[np.float64], *, level: float = 0.95, seed: int = 0, samples: int = 2000
) -> tuple[float, float]:
    """Return the bootstrap confidence interval of the mean of (q,) values.

    >>> interval(np.array([0.5, 0.5]))
    (0.5, 0.5)
    """
    rng = np.random.default_rng(seed)
    count = len(values)
    step = max(1, _AT_ONCE // count)
    means = [
        values[rng.integers(count, size=(min(step, samples - first), count))].mean(axis=1)
        for first in range(0, samples, step)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
