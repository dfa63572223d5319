"""Fusion: RRF and weighted sums by hand-derived numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers.errors import InputError
from m3_retrievers.scoring.fusion import (
    ReciprocalRankFusion,
    WeightedSum,
    min_max,
    rrf,
    weighted_sum,
    z_score,
)
from m3_retrievers.types.hits import Ranking


def ranking(ids: str, scores: list[float] | None = None) -> Ranking:
    values = scores if scores is not None else list(range(len(ids), 0, -1))
    return Ranking(tuple(ids), np.array(values, np.float64))


DENSE = ranking("abc", [0.9, 0.5, 0.1])
BM25 = ranking("bd", [12.0, 8.0])


def test_rrf_by_hand():
    fused = rrf([DENSE, BM25])
    assert fused.ids == ("b", "a", "d", "c")
    assert fused.scores == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63])


def test_rrf_with_weights_and_k_by_hand():
    fused = rrf([DENSE, BM25], k=1, weights=[1.0, 3.0])
    assert fused.ids == ("b", "d", "a", "c")
    assert fused.scores == pytest.approx([1 / 3 + 3 / 2, 1.0, 1 / 2, 1 / 4])


def test_weighted_sum_of_min_max_by_hand():
    fused = weighted_sum([DENSE, BM25], weights=[1.0, 0.4])
    # dense: a 1, b 0.5, c 0; bm25: b 1, d 0
    assert fused.ids == ("a", "b", "c", "d")
    assert fused.scores == pytest.approx([1.0, 0.9, 0.0, 0.0])


def test_weighted_sum_of_raw_scores_by_hand():
    fused = weighted_sum([DENSE, BM25], weights=[10, 1], normalize=None)
    assert fused.ids == ("b", "a", "d", "c")
    assert fused.scores == pytest.approx([17.0, 9.0, 8.0, 1.0])


def test_z_score_counts_an_absent_document_as_the_list_s_last():
    fused = weighted_sum([DENSE, BM25], normalize="z_score")
    step = math.sqrt(1.5)  # 0.4 over the deviation sqrt(0.32 / 3)
    # a: step - 1, b: 0 + 1, c: -step - 1, d: -step - 1
    assert fused.ids == ("b", "a", "c", "d")
    assert fused.scores == pytest.approx([1.0, step - 1, -step - 1, -step - 1])


def test_min_max_and_z_score_of_constant_and_empty_lists():
    assert min_max(np.array([5.0, 5.0])).tolist() == [1.0, 1.0]
    assert z_score(np.array([0.1, 0.1, 0.1])).tolist() == [0.0, 0.0, 0.0]
    assert min_max(np.empty(0)).tolist() == z_score(np.empty(0)).tolist() == []
    assert min_max(np.array([3, 1], np.float32)).dtype == np.float64


@pytest.mark.parametrize("fuse", [rrf, weighted_sum])
def test_ties_break_by_first_appearance_over_the_rankings(fuse):
    assert fuse([ranking("xy"), ranking("yx")]).ids == ("x", "y")
    assert fuse([ranking("x"), ranking("y"), ranking("z")]).ids == ("x", "y", "z")


def test_equal_ranks_in_other_lists_tie_exactly():
    # ranks (1, 2, 3) for p and (3, 1, 2) for q: added in turn, floats would differ
    legs = [ranking("qzp"), ranking("pqz"), ranking("zpq")]
    fused = rrf(legs)
    assert fused.ids == ("q", "z", "p")
    assert len(set(fused.scores.tolist())) == 1


@pytest.mark.parametrize("fuse", [rrf, weighted_sum])
def test_nothing_in_nothing_out(fuse):
    assert len(fuse([])) == 0
    assert len(fuse([], weights=[])) == 0
    assert len(fuse([ranking(""), ranking("")])) == 0
    assert fuse([ranking(""), ranking("ab")]).ids == ("a", "b")


@pytest.mark.parametrize("fuse", [rrf, weighted_sum])
def test_a_ranking_of_weight_0_is_left_out(fuse):
    assert fuse([DENSE, BM25], weights=[0, 1]).ids == ("b", "d")


def test_an_id_repeated_in_a_list_counts_where_it_stands_first():
    assert rrf([ranking("aba")], k=0).scores.tolist() == [1.0, 0.5]


@given(
    st.lists(
        st.lists(st.sampled_from("abcdefgh"), unique=True).map(lambda ids: ranking("".join(ids))),
        min_size=1,
        max_size=4,
    ),
    st.randoms(),
)
def test_the_order_of_the_rankings_changes_no_score(rankings, random):
    shuffled = random.sample(rankings, len(rankings))
    for fuse in (rrf, weighted_sum):
        first, second = fuse(rankings), fuse(shuffled)
        assert dict(zip(first.ids, first.scores, strict=True)) == dict(
            zip(second.ids, second.scores, strict=True)
        )
        assert np.all(np.diff(first.scores) <= 0)


def test_the_callables_take_legs_by_name():
    legs = {"dense": DENSE, "bm25": BM25}
    assert ReciprocalRankFusion()(legs).ids == rrf([DENSE, BM25]).ids
    weighted = ReciprocalRankFusion(k=1, weights={"bm25": 3.0, "dense": 1.0})(legs)
    assert weighted.ids == ("b", "d", "a", "c")
    summed = WeightedSum(weights={"bm25": 0.4, "dense": 1.0})(legs)
    assert summed.scores == pytest.approx([1.0, 0.9, 0.0, 0.0])
    assert WeightedSum(normalize=None)(legs).ids == ("b", "d", "a", "c")
    assert len(WeightedSum()({})) == 0


def test_the_callables_weigh_every_leg_or_none():
    with pytest.raises(InputError, match=r"\['bm25', 'dense'\], got \['dense', 'sparse'\]"):
        WeightedSum(weights={"dense": 1, "sparse": 1})({"dense": DENSE, "bm25": BM25})


@pytest.mark.parametrize("k", [-1, math.nan, math.inf, "60", True])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(InputError, match="k expects a finite number ≥ 0"):
        rrf([DENSE], k=k)
    with pytest.raises(InputError, match="k expects"):
        ReciprocalRankFusion(k=k)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, math.nan], [0, 0], [1, "2"]])
def test_weights_out_of_range_are_refused(weights):
    for fuse in (rrf, weighted_sum):
        with pytest.raises(InputError, match="weight"):
            fuse([DENSE, BM25], weights=weights)
    if len(weights) == 2:
        for make in (ReciprocalRankFusion, WeightedSum):
            with pytest.raises(InputError, match="weight"):
                make(weights={"dense": weights[0], "bm25": weights[1]})


def test_an_unknown_normalisation_and_nan_scores_are_refused():
    with pytest.raises(InputError, match="'min_max', 'z_score' or None, got 'softmax'"):
        weighted_sum([DENSE], normalize="softmax")
    with pytest.raises(InputError, match="normalize expects"):
        WeightedSum(normalize="softmax")
    for normalize in ("min_max", "z_score", None):
        with pytest.raises(InputError, match="finite scores"):
            weighted_sum([ranking("ab", [1.0, math.nan])], normalize=normalize)
