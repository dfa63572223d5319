"""The training losses against FlagEmbedding 1.4.2, plain loops and numbers by hand.

The recording is in tests/fixtures; record_flag_embedding_losses.py there says how it was made.
The same similarities give the same losses to 1e-6; the whole way from the texts, in float32, to
1e-5. Gradients are held against the recording and against central differences of the loops in
tests/reference.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import load_file
from torch import Tensor

import reference
from m3_retrievers.errors import TrainingError
from m3_retrievers.training.losses import (
    Losses,
    ModeScores,
    info_nce,
    kl_div,
    m3_kd_loss,
    m3_loss,
    self_distillation,
)
from m3_retrievers.training.settings import LossSettings
from m3_retrievers.types.plan import HybridWeights

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDED = json.loads((FIXTURES / "flag_embedding_losses.json").read_text("utf-8"))
ARRAYS = load_file(FIXTURES / "flag_embedding_losses.safetensors")
TEACHERS: list[Any] = ["kl_div", "m3_kd_loss"]
GROUP = 3
MODES: list[str] = ["dense", "sparse", "colbert"]

similarity = st.floats(-1, 1)


@st.composite
def batches(draw: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (q, d) as at temperature 0.1, targets (q,) and a teacher's shares (q, g)."""
    queries, group = draw(st.integers(1, 4)), draw(st.integers(2, 3))
    spare = draw(st.integers(0, 2))  # candidates that are in no query's group
    scores = draw(hnp.arrays(np.float64, (queries, queries * group + spare), elements=similarity))
    teacher = draw(hnp.arrays(np.float64, (queries, group), elements=st.floats(-3, 3)))
    targets = torch.arange(queries) * group
    return torch.from_numpy(scores) / 0.1, targets, torch.from_numpy(teacher).softmax(-1)


# --- numbers by hand ------------------------------------------------------------------------


def test_info_nce_is_the_log_share_of_the_positive() -> None:
    # shares 3/4 of the first and 2/10 of the third: (log 4/3 + log 5) / 2
    scores = torch.tensor([[3.0, 0.5, 0.5], [5.0, 3.0, 2.0]]).log()
    expected = (math.log(4 / 3) + math.log(5)) / 2
    assert info_nce(scores, torch.tensor([0, 2])).item() == pytest.approx(expected)
    assert reference.info_nce(scores.tolist(), [0, 2]) == pytest.approx(expected)


def test_self_distillation_is_the_cross_entropy_from_the_teacher() -> None:
    # teacher 3/4, 1/4; student 1/4, 3/4: 3/4 log 4 + 1/4 log 4/3
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 3.0]]).log()
    expected = 0.75 * math.log(4) + 0.25 * math.log(4 / 3)
    assert self_distillation(student, teacher).item() == pytest.approx(expected)
    shares = torch.tensor([[0.75, 0.25]])
    assert kl_div(student, shares).item() == pytest.approx(expected)
    assert reference.cross_entropy(student.tolist(), shares.tolist()) == pytest.approx(expected)


def test_m3_kd_loss_takes_each_member_out_after_its_turn() -> None:
    # group 6, 1 and a stranger 2: the first has 6/9; then the second 1/3
    scores, shares = torch.tensor([[6.0, 1.0, 2.0]]).log(), torch.tensor([[0.75, 0.25]])
    expected = 0.75 * math.log(9 / 6) + 0.25 * math.log(3)
    assert m3_kd_loss(scores, torch.tensor([0]), shares).item() == pytest.approx(expected)
    assert reference.m3_kd_loss(scores.tolist(), [0], shares.tolist()) == pytest.approx(expected)


# --- FlagEmbedding on the same similarities -------------------------------------------------


@pytest.mark.parametrize("teacher", [None, *TEACHERS])
def test_every_loss_equals_flag_embeddings(teacher: Any) -> None:
    expected = RECORDED["losses"][teacher or "no_teacher"]
    plain, taught = (_recorded_loss(teacher, distill=distill) for distill in (False, True))
    assert set(plain.parts) == {*MODES, "ensemble"}
    assert set(taught.parts) == {*MODES, "ensemble", *(f"distill_{mode}" for mode in MODES)}
    for name, part in taught.parts.items():
        assert part.item() == pytest.approx(expected[name], abs=1e-6), name
    assert plain.total.item() == pytest.approx(expected["total"], abs=1e-6)
    assert taught.total.item() == pytest.approx(expected["total_self_distilled"], abs=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_group_of_its_own_equals_flag_embedding_without_in_batch_negatives(mode: str) -> None:
    scores = ARRAYS[f"similarity.{mode}"]
    strangers = torch.ones(scores.shape, dtype=torch.bool)
    for query, first in enumerate(_targets(len(scores)).tolist()):
        strangers[query, first : first + GROUP] = False
    loss = _loss({mode: scores}, None, excluded=strangers).total
    assert loss.item() == pytest.approx(RECORDED["losses"]["own_group"][mode], abs=1e-6)


@pytest.mark.parametrize("teacher", [None, *TEACHERS])
def test_dense_alone_equals_flag_embedding_without_unified_training(teacher: Any) -> None:
    expected = RECORDED["losses"][teacher or "no_teacher"]["total_dense_only"]
    losses = _recorded_loss(teacher, modes=("dense",), distill=True)
    assert set(losses.parts) == {"dense"}
    assert losses.total.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("teacher", [None, *TEACHERS])
def test_the_plain_loops_equal_flag_embedding_too(teacher: Any) -> None:
    expected = RECORDED["losses"][teacher or "no_teacher"]
    similarities = {mode: ARRAYS[f"similarity.{mode}"].tolist() for mode in MODES}
    given = RECORDED["teacher_scores"]
    losses = reference.m3_loss(
        similarities,
        _targets(4).tolist(),
        shares=[reference.softmax(row) for row in given] if teacher else None,
        kind=teacher,
        own_shares=_own_shares(similarities),
    )
    assert losses.pop("total") == pytest.approx(expected["total_self_distilled"], abs=1e-6)
    for name, loss in losses.items():
        assert loss == pytest.approx(expected[name], abs=1e-6), name


# --- gradients ------------------------------------------------------------------------------


@settings(max_examples=15)
@given(batches())
def test_gradients_equal_the_slopes_of_the_plain_loops(batch: Any) -> None:
    scores, targets, shares = batch
    at, given = targets.tolist(), shares.tolist()
    own = scores.flip(1)
    groups = _groups(scores, targets, shares)
    pairs: list[tuple[Tensor, Callable[[Tensor], Tensor], Callable[[Any], float]]] = [
        (scores, lambda x: info_nce(x, targets), lambda x: reference.info_nce(x, at)),
        (
            scores,
            lambda x: self_distillation(x, own),
            lambda x: reference.cross_entropy(x, own.softmax(-1).tolist()),
        ),
        (groups, lambda x: kl_div(x, shares), lambda x: reference.cross_entropy(x, given)),
        (
            scores,
            lambda x: m3_kd_loss(x, targets, shares),
            lambda x: reference.m3_kd_loss(x, at, given),
        ),
    ]
    for point, ours, naive in pairs:
        x = point.clone().requires_grad_()
        loss = ours(x)
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == pytest.approx(naive(point.tolist()), abs=1e-9)
        _assert_close(x.grad, reference.slopes(naive, point.tolist()), 1e-7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("teacher", [None, *TEACHERS])
def test_the_total_has_the_slopes_of_the_plain_loops(mode: str, teacher: Any) -> None:
    """The ensemble teaches as a constant: its shares stay while the similarities move."""
    scores = {name: ARRAYS[f"similarity.{name}"].clone().requires_grad_() for name in MODES}
    _loss(scores, teacher, distill=True).total.backward()  # type: ignore[no-untyped-call]
    similarities = {name: ARRAYS[f"similarity.{name}"].tolist() for name in MODES}
    given = RECORDED["teacher_scores"]
    shares = [reference.softmax(row) for row in given] if teacher else None

    def total(rows: list[list[float]]) -> float:
        return reference.m3_loss(
            {**similarities, mode: rows},
            _targets(4).tolist(),
            shares=shares,
            kind=teacher,
            own_shares=_own_shares(similarities),
        )["total"]

    slopes = reference.slopes(total, similarities[mode])
    assert max(abs(slope) for row in slopes for slope in row) > 0.1
    _assert_close(scores[mode].grad, slopes, 1e-6)


@pytest.mark.parametrize("function", ["info_nce", "self_distillation", "kl_div", "m3_kd_loss"])
def test_torch_finds_the_gradients_right(function: str) -> None:
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 7))).requires_grad_()
    targets, shares = torch.tensor([0, 2, 4]), torch.tensor([[0.7, 0.3]] * 3, dtype=torch.float64)
    teacher = scores.detach().flip(0)
    losses: dict[str, Callable[[Tensor], Tensor]] = {
        "info_nce": lambda x: info_nce(x, targets),
        "self_distillation": lambda x: self_distillation(x, teacher),
        "kl_div": lambda x: kl_div(x[:, :2], shares),
        "m3_kd_loss": lambda x: m3_kd_loss(x, targets, shares),
    }
    assert torch.autograd.gradcheck(losses[function], (scores,))


def test_the_teacher_gets_no_gradient() -> None:
    student = torch.randn(2, 4, requires_grad=True)
    teacher = torch.randn(2, 4, requires_grad=True)
    self_distillation(student, teacher).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert teacher.grad is None


def test_scores_of_an_outside_teacher_get_no_gradient() -> None:
    scores = torch.randn(2, 4, requires_grad=True)
    teacher = torch.randn(2, 2, requires_grad=True)
    for kind in TEACHERS:
        losses = m3_loss(
            ModeScores(dense=scores),
            torch.tensor([0, 2]),
            settings=LossSettings(teacher=kind),
            teacher=teacher,
        )
        losses.total.backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None


# --- laws -----------------------------------------------------------------------------------


@settings(max_examples=30)
@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_queries_and_candidates_changes_nothing(batch: Any, random: Any) -> None:
    scores, targets, shares = batch
    rows = torch.tensor(random.sample(range(len(scores)), len(scores)))
    turned = scores[rows], targets[rows], shares[rows]
    _assert_close(info_nce(*turned[:2]), info_nce(scores, targets), 1e-12)
    _assert_close(m3_kd_loss(*turned), m3_kd_loss(scores, targets, shares), 1e-12)
    _assert_close(
        self_distillation(turned[0], turned[0] / 2), self_distillation(scores, scores / 2), 1e-12
    )
    columns = torch.tensor(random.sample(range(scores.shape[1]), scores.shape[1]))
    moved = torch.argsort(columns)[targets]
    _assert_close(info_nce(scores[:, columns], moved), info_nce(scores, targets), 1e-12)


@given(st.integers(1, 4), st.integers(2, 9), st.floats(-50, 50), st.data())
def test_equal_scores_give_the_log_of_the_number_of_candidates(
    queries: int, candidates: int, score: float, data: Any
) -> None:
    scores = torch.full((queries, candidates), score, dtype=torch.float64)
    targets = torch.tensor([data.draw(st.integers(0, candidates - 2)) for _ in range(queries)])
    assert info_nce(scores, targets).item() == pytest.approx(math.log(candidates))
    anyone = torch.linspace(-3, 2, candidates, dtype=torch.float64).expand(queries, -1)
    assert self_distillation(scores, anyone).item() == pytest.approx(math.log(candidates))
    shares = anyone[:, :2].softmax(-1)
    one_fewer = [math.log(candidates), math.log(candidates - 1)]
    expected = (shares.mean(0) * torch.tensor(one_fewer, dtype=torch.float64)).sum()
    assert m3_kd_loss(scores, targets, shares).item() == pytest.approx(expected.item())


@settings(max_examples=30)
@given(batches(), st.floats(-40, 40))
def test_a_constant_added_to_a_query_changes_nothing(batch: Any, constant: float) -> None:
    scores, targets, shares = batch
    lifted = scores.clone()
    lifted[0] += constant
    _assert_close(info_nce(lifted, targets), info_nce(scores, targets), 1e-9)
    _assert_close(m3_kd_loss(lifted, targets, shares), m3_kd_loss(scores, targets, shares), 1e-9)
    _assert_close(self_distillation(lifted, scores), self_distillation(scores, scores), 1e-9)


@settings(max_examples=30)
@given(batches())
def test_a_teacher_sure_of_the_positive_is_info_nce(batch: Any) -> None:
    scores, targets, shares = batch
    sure = torch.zeros_like(shares)
    sure[:, 0] = 1.0
    _assert_close(m3_kd_loss(scores, targets, sure), info_nce(scores, targets), 1e-12)
    groups = _groups(scores, targets, shares)
    _assert_close(kl_div(groups, sure), info_nce(groups, torch.zeros_like(targets)), 1e-12)


@settings(max_examples=30)
@given(batches())
def test_nobody_fits_a_teacher_better_than_itself(batch: Any) -> None:
    teacher, _, _ = batch
    shares = teacher.softmax(-1)
    entropy = -torch.xlogy(shares, shares).sum(-1).mean()
    _assert_close(self_distillation(teacher, teacher), entropy, 1e-9)
    for student in (teacher.roll(1, dims=1), teacher / 2, teacher * 3):
        assert self_distillation(student, teacher).item() >= entropy.item() - 1e-12


def test_an_excluded_candidate_is_as_if_it_were_not_there() -> None:
    scores = {mode: ARRAYS[f"similarity.{mode}"] for mode in MODES}
    excluded = torch.zeros(scores["dense"].shape, dtype=torch.bool)
    excluded[:, -1] = True
    without = {mode: one[:, :-1] for mode, one in scores.items()}
    for distill in (False, True):
        expected = _loss(without, None, distill=distill)
        ours = _loss(scores, None, distill=distill, excluded=excluded)
        _assert_close(ours.total, expected.total, 1e-12)


def test_two_modes_have_an_ensemble_of_their_own() -> None:
    # at temperature 1 and equal scores each part is log 2: (1 + 0.1 + 1)/3 of it
    scores = ModeScores(dense=torch.zeros(1, 2), sparse=torch.zeros(1, 2))
    losses = m3_loss(scores, torch.tensor([0]), settings=LossSettings(temperature=1.0))
    assert set(losses.parts) == {"dense", "sparse", "ensemble"}
    assert losses.total.item() == pytest.approx(2.1 / 3 * math.log(2))


def test_every_constant_of_the_settings_counts() -> None:
    # halves of logs at temperature 1/2: shares 2/3, 4/5, and with 2·log 2 + 1/2·log 4 of 8/9
    scores = ModeScores(
        dense=torch.tensor([[2.0, 1.0]]).log() / 2, sparse=torch.tensor([[4.0, 1.0]]).log() / 2
    )
    settings = LossSettings(
        temperature=0.5, ensemble=HybridWeights(2.0, 0.5, 7.0), sparse_share=0.25
    )
    losses = m3_loss(scores, torch.tensor([0]), settings=settings)
    expected = (math.log(3 / 2) + 0.25 * math.log(5 / 4) + math.log(9 / 8)) / 3
    assert losses.total.item() == pytest.approx(expected)


def test_a_mode_alone_counts_in_full() -> None:
    losses = m3_loss(
        ModeScores(sparse=torch.zeros(1, 2)), torch.tensor([0]), settings=LossSettings()
    )
    assert losses.total.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("scores", [ModeScores(), ModeScores(dense=torch.zeros(3, 1))])
def test_nothing_to_tell_apart_is_an_error(scores: ModeScores) -> None:
    with pytest.raises(TrainingError, match="at least two candidate passages"):
        m3_loss(scores, torch.zeros(3, dtype=torch.long), settings=LossSettings())


def _recorded_loss(teacher: Any, *, distill: bool, modes: Any = MODES) -> Losses:
    return _loss({mode: ARRAYS[f"similarity.{mode}"] for mode in modes}, teacher, distill=distill)


def _loss(scores: dict[str, Tensor], teacher: Any, **options: Any) -> Losses:
    given = torch.tensor(RECORDED["teacher_scores"], dtype=torch.float64)
    count = len(next(iter(scores.values())))
    return m3_loss(
        ModeScores(**scores),
        _targets(count),
        settings=LossSettings(teacher=teacher or "kl_div"),
        teacher=given if teacher else None,
        **options,
    )


def _targets(queries: int) -> Tensor:
    return torch.arange(queries) * GROUP


def _groups(scores: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
    rows = zip(scores, targets.tolist(), strict=True)
    return torch.stack([row[first : first + shares.shape[1]] for row, first in rows])


def _own_shares(similarities: dict[str, list[list[float]]]) -> list[list[float]]:
    weights = {"dense": 1 / 0.02, "sparse": 0.3 / 0.02, "colbert": 1 / 0.02}
    return [reference.softmax(row) for row in reference.ensemble(similarities, weights)]


def _assert_close(ours: Any, expected: Any, tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(expected), atol=tolerance, rtol=0)
