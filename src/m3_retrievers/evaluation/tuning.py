"""Which weights suit a model: searched on some queries, reported on others."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.evaluation.benchmark import evaluate, represent
from m3_retrievers.evaluation.datasets import Collection
from m3_retrievers.evaluation.metrics import measure, reach
from m3_retrievers.evaluation.modes import weight_name
from m3_retrievers.evaluation.scores import Scorer, word_bm25
from m3_retrievers.evaluation.trec import RankedRun
from m3_retrievers.scoring.top import top_k
from m3_retrievers.types.plan import HybridWeights, Mode
from m3_retrievers.types.representations import Representations

# ColBERT is the unit; only the ratios of the weights order documents.
GRID = tuple(
    HybridWeights(dense=dense, sparse=sparse, colbert=1.0)
    for dense, sparse in itertools.product(
        (0.0, 0.25, 0.5, 0.75, 1.0, 1.5), (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)
    )
)


@dataclass(frozen=True, slots=True)
class Tuned:
    """weights: the best on the tuning queries, of ``tried`` settings. tuned: its mean there.

    before, after: the mean on the other queries with the model's own weights and with these;
    ``tuned`` is of other queries, so compare these two with each other only.
    trials: every setting and its mean on the tuning queries, best first.
    """

    weights: HybridWeights
    tried: int
    tuned: float
    before: float
    after: float
    trials: tuple[tuple[HybridWeights, float], ...]


def tune_weights(
    encoder: Encoder,
    tuning: Sequence[Collection] | Collection,
    report: Collection,
    *,
    grid: Iterable[HybridWeights] = GRID,
    metric: str = "nDCG@10",
    representations: tuple[Representations, Representations] | None = None,
    show_progress: bool = False,
) -> Tuned:
    """Return the weights that are best on ``tuning``, and what they give on ``report``.

    tuning: one collection or several, of which the mean of means counts; documents that are
    those of ``report`` are encoded once. representations: of ``report``, from ``represent``.

    Raises InputError if a query stands on both sides.
    """
    several = [tuning] if isinstance(tuning, Collection) else list(tuning)
    shared = {text for one in several for text in one.queries.values()} & set(
        report.queries.values()
    )
    if shared or not several:
        raise InputError(
            f"tune_weights expects tuning queries that are not reported on, got {len(shared)} that "
            f"are ({sorted(shared)[:2]}). Use another split, or Collection.halves()."
        )
    settings = list(grid)
    means = np.zeros(len(settings))
    vectors = representations or represent(encoder, report, show_progress=show_progress)
    for one in several:
        same = vectors[1] if one.documents == report.documents else None
        found = represent(encoder, one, documents=same, show_progress=show_progress)
        means += grid_means(encoder, one, settings, metric=metric, representations=found)
    means /= len(several)
    order = np.argsort(-means, kind="stable")
    best = settings[int(order[0])]
    before, after = (
        evaluate(
            encoder,
            report,
            modes=["all"],
            weights=weights,
            measures=[metric],
            representations=vectors,
        ).mean("all", metric)
        for weights in (encoder.default_weights, best)
    )
    trials = tuple((settings[int(at)], float(means[at])) for at in order)
    return Tuned(best, len(settings), float(means[order[0]]), before, after, trials)


def grid_means(
    encoder: Encoder,
    collection: Collection,
    grid: Sequence[HybridWeights],
    *,
    metric: str,
    representations: tuple[Representations, Representations],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the mean of a measure for each setting, every document scored in every mode."""
    modes: list[Mode] = [mode for mode in encoder.outputs if mode != "tokens"]
    if "sparse" not in modes:
        modes.append("bm25")
    scorer = Scorer.over(collection, representations, modes=modes, bm25=word_bm25())
    depth = reach([metric])
    ids, query_ids = list(collection.documents), list(collection.queries)
    runs: list[RankedRun] = [{} for _ in grid]
    for block in scorer:
        shares = np.stack([block.shares(mode) for mode in modes])  # (m, b, n)
        for run, weights in zip(runs, grid, strict=True):
            each = [getattr(weights, weight_name(mode)) for mode in modes]
            totals = np.tensordot(np.asarray(each), shares, axes=1)
            for row, scores in enumerate(totals):
                best = top_k(scores, depth)
                found = ([ids[at] for at in best], scores[best].tolist())
                run[query_ids[block.first + row]] = found
    return np.array([measure(run, collection.qrels, [metric])[metric].mean() for run in runs])
