"""Whether two indexes say the same, as exactly as the coarser of the two can.

Scores are compared as numbers. Documents whose scores are nearer to each other than the
tolerance may change places, and no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from m3_retrievers.types.hits import Hit, Ranking, Record
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Plan
from m3_retrievers.types.representations import Output, Representations

Tolerances = Mapping[str, float]


def same_records(found: Sequence[Record], expected: Sequence[Record]) -> None:
    """Assert that records are equal, their metadata to the type: 1 is not 1.0, nor True."""
    assert [record.id for record in found] == [record.id for record in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.text == other.text, one.id
        assert written(one.metadata) == written(other.metadata), one.id


def written(metadata: Mapping[str, Any]) -> str:
    """Return metadata as JSON, without the order of its keys."""
    return json.dumps(metadata, sort_keys=True)


def same_ranking(
    found: Ranking, expected: Mapping[str, float], *, k: int | None, tolerance: float
) -> None:
    """Assert that a ranking is the best k of all the documents that could be found.

    expected: the exact score of each of them.
    """
    best = sorted(expected.values(), reverse=True)[:k]
    assert len(set(found.ids)) == len(found.ids), "an id came twice"
    assert set(found.ids) <= set(expected), set(found.ids) - set(expected)
    assert len(found.ids) == len(best), (found.ids, list(expected))
    _descend(found.scores)
    np.testing.assert_allclose(found.scores, best, rtol=0, atol=tolerance)
    own = [expected[id] for id in found.ids]
    np.testing.assert_allclose(found.scores, own, rtol=0, atol=tolerance)


def same_hits(
    found: Sequence[Hit],
    expected: Sequence[Hit],
    *,
    k: int,
    plan: Plan,
    tolerances: Tolerances,
) -> None:
    """Assert that hits are the best k of all hits that there are, in all that a hit says.

    expected: all of them, best first. tolerances: by the name of the score.
    """
    weights: Mapping[Any, float] = {} if plan.fusion else plan.weighted
    by_id = {hit.id: hit for hit in expected}
    assert len({hit.id for hit in found}) == len(found), "an id came twice"
    assert {hit.id for hit in found} <= set(by_id), {hit.id for hit in found} - set(by_id)
    assert len(found) == min(k, len(expected))
    bound = tolerances["hybrid"]
    scores = np.array([hit.score for hit in found])
    _descend(scores)
    best = [hit.score for hit in expected[:k]]
    np.testing.assert_allclose(scores, best, rtol=0, atol=bound)
    for hit in found:
        _same_hit(hit, by_id[hit.id], tolerances=tolerances, weights=weights)
        for name, rank in hit.ranks.items():
            first, last = _places(hit.id, name, expected, tolerance=tolerances[name])
            assert first <= rank <= last, f"{hit.id} has the rank {rank} in {name}"


def _same_hit(
    hit: Hit, expected: Hit, *, tolerances: Tolerances, weights: Mapping[str, float]
) -> None:
    assert hit.text == expected.text
    assert written(hit.metadata) == written(expected.metadata)
    assert abs(hit.score - expected.score) <= tolerances["hybrid"], hit.id
    for name in ("scores", "ranks", "contributions"):
        assert getattr(hit, name).keys() == getattr(expected, name).keys(), (hit.id, name)
    for mode, score in hit.scores.items():
        assert abs(score - expected.scores[mode]) <= tolerances[mode], (hit.id, mode)
    for mode, part in hit.contributions.items():
        bound = tolerances[mode] * max(weights.get(mode, 0.0), 1.0)
        assert abs(part - expected.contributions[mode]) <= bound, (hit.id, mode)
    if weights:
        assert abs(sum(hit.contributions.values()) - hit.score) <= tolerances["hybrid"], hit.id


def _places(id: str, name: str, hits: Sequence[Hit], *, tolerance: float) -> tuple[float, float]:
    """Return the first and the last rank that a document's score in one mode allows."""
    ranks = {hit.id: hit.ranks[name] for hit in hits if name in hit.ranks}
    scores = {hit.id: hit.scores[name] for hit in hits if name in hit.ranks}
    near = [ranks[other] for other in ranks if abs(scores[other] - scores[id]) <= 2 * tolerance]
    return min(near), max(near)


def same_vectors(
    found: Representations,
    expected: Representations,
    *,
    outputs: Sequence[Output],
    tolerances: Tolerances,
) -> None:
    """Assert that representations hold these outputs and no others, row by row."""
    assert len(found) == len(expected)
    assert set(found.outputs) == set(outputs)
    if "dense" in outputs:
        dense, other = found.require("dense"), expected.require("dense")
        np.testing.assert_allclose(dense, other, rtol=0, atol=tolerances["dense"])
    if "sparse" in outputs:
        sparse, other = found.require("sparse"), expected.require("sparse")
        assert sparse.shape == other.shape
        np.testing.assert_allclose(
            sparse.toarray(), other.toarray(), rtol=0, atol=tolerances["sparse"]
        )
    if "colbert" in outputs:
        colbert, other = found.require("colbert"), expected.require("colbert")
        assert colbert.offsets.tolist() == other.offsets.tolist()
        np.testing.assert_allclose(
            colbert.vectors, other.vectors, rtol=0, atol=tolerances["colbert"]
        )


def _descend(scores: Floats) -> None:
    assert np.all(np.diff(np.asarray(scores, np.float64)) <= 0), f"scores rise: {scores}"
