"""top_k: a stable argsort, only faster."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from m3_retrievers.errors import InputError
from m3_retrievers.scoring.top import top_k

# Few distinct values give ties at the cut; lengths past 64 · k take the grouped first look.
few_values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, np.inf, -np.inf, np.nan])
any_value = st.floats(width=32)


def oracle(scores: np.ndarray, k: int | None, allowed: np.ndarray | None = None) -> list[int]:
    keep = ~np.isnan(scores)
    if allowed is not None:
        keep &= allowed
    ranked = np.argsort(-scores, kind="stable")
    return [int(place) for place in ranked if keep[place]][:k]


@given(
    scores=hnp.arrays(np.float32, st.integers(0, 40), elements=few_values | any_value),
    k=st.none() | st.integers(1, 50),
)
def test_it_is_a_stable_argsort_without_nan(scores, k):
    assert top_k(scores, k).tolist() == oracle(scores, k)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [1, 3, 50, 10**6])
@pytest.mark.parametrize("missing", [0.0, 0.001, 0.3, 1.0])
@pytest.mark.parametrize("k", [1, 7, 100])
def test_long_arrays_with_ties_at_the_cut(dtype, levels, missing, k):
    rng = np.random.default_rng(levels + k)
    scores = (rng.integers(0, levels, 10_007) / 8.0).astype(dtype)
    scores[rng.random(len(scores)) < missing] = np.nan
    assert top_k(scores, k).tolist() == oracle(scores, k)


def test_nan_in_every_group_but_a_few_does_not_hide_the_best():
    scores = np.arange(6400, dtype=np.float32)
    scores[:99] = np.nan  # 100 groups: 99 hold a NaN
    assert top_k(scores, 3).tolist() == [6399, 6398, 6397]


@given(
    scores=hnp.arrays(np.float64, 30, elements=few_values),
    allowed=hnp.arrays(bool, 30),
    k=st.none() | st.integers(1, 30),
)
def test_candidates_as_a_mask_or_as_positions(scores, allowed, k):
    expected = oracle(scores, k, allowed)
    assert top_k(scores, k, candidates=allowed).tolist() == expected
    assert top_k(scores, k, candidates=np.flatnonzero(allowed)).tolist() == expected


def test_input_is_not_changed():
    scores = np.array([3.0, np.nan, 1.0, 2.0] * 100)
    before = scores.copy()
    top_k(scores, 2)
    assert np.array_equal(scores, before, equal_nan=True)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_1_is_refused(k):
    with pytest.raises(InputError, match=rf"k expects an integer ≥ 1.*got {k}"):
        top_k(np.zeros(3), k)
