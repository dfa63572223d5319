"""Which modes a plan scores, and which of them count."""

import pytest

from m3_retrievers import HybridWeights, Recall, ReciprocalRankFusion
from m3_retrievers.errors import InputError
from m3_retrievers.types.plan import Plan

ALL = HybridWeights(dense=1, sparse=0.3, colbert=2)


@pytest.mark.parametrize(
    ("plan", "modes", "weighted"),
    [
        (Plan(weights=ALL), ("dense", "sparse", "colbert"), [1, 0.3, 2]),
        (Plan(("bm25",), weights=ALL), ("dense", "bm25", "colbert"), [1, 0.3, 2]),
        (Plan(weights=ALL, outputs=("dense", "sparse")), ("dense", "sparse"), [1, 0.3]),
        (Plan(("sparse",), weights=HybridWeights(0, 1, 0)), ("sparse",), [1]),
    ],
)
def test_the_legs_are_scored_and_what_the_weights_add(plan, modes, weighted):
    assert plan.modes == modes
    assert plan.weighted == dict(zip(modes, weighted, strict=True))
    assert plan.total_weight == pytest.approx(sum(weighted))


def test_of_two_lexical_legs_only_m3s_counts():
    plan = Plan(("dense", "sparse", "bm25"), weights=ALL)
    assert plan.modes == ("dense", "sparse", "bm25", "colbert")
    assert "bm25" not in plan.weighted


def test_a_leg_of_weight_0_is_scored_and_does_not_count():
    plan = Plan(weights=HybridWeights(dense=0, sparse=1, colbert=0))
    assert (plan.modes, plan.weighted) == (("dense", "sparse"), {"sparse": 1.0})


def test_a_plan_that_orders_nothing_is_refused_unless_it_fuses():
    weights = HybridWeights(dense=0, sparse=0, colbert=1)
    with pytest.raises(InputError, match="weight above 0"):
        Plan(weights=weights, outputs=("dense", "sparse"))
    assert Plan(weights=weights, outputs=("dense",), fusion=ReciprocalRankFusion()).fusion


def test_each_leg_has_its_depth():
    recall = Recall(dense=5, lexical=None)
    assert [recall.depth(leg) for leg in ("dense", "sparse", "bm25")] == [5, None, None]
