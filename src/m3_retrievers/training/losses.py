"""The losses M3 is trained with, as pure functions of similarities.

BGE-M3 (arXiv 2402.03216) section 3.3; equal to FlagEmbedding 1.4.2. Axis letters: q
queries, d candidate passages, g passages of one query's group (the first is the positive).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from m3_retrievers.errors import TrainingError
from m3_retrievers.training.settings import MODES, LossSettings

# A candidate that must not count: its share of any softmax is exactly 0, and 0 · it stays 0.
EXCLUDED = -1e4


@dataclass(frozen=True, slots=True, eq=False)
class ModeScores:
    """Similarities (q, d) a mode, not divided by the temperature; None where there is no head."""

    dense: Tensor | None = None
    sparse: Tensor | None = None
    colbert: Tensor | None = None

    def present(self) -> dict[str, Tensor]:
        """Return the modes that are there, in a fixed order."""
        found = {mode: getattr(self, mode) for mode in MODES}
        return {mode: scores for mode, scores in found.items() if scores is not None}


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """total: what is minimised, a scalar. parts: each term of it before weighting, by name."""

    total: Tensor
    parts: Mapping[str, Tensor]


def info_nce(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of −log softmax(scores)[target] over the queries.

    scores: (q, d), divided by the temperature. targets: (q,) the column of each positive.

    >>> round(float(info_nce(torch.zeros(2, 4), torch.tensor([0, 2]))), 4)  # log 4
    1.3863
    """
    return functional.cross_entropy(scores, targets)


def self_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return −Σ softmax(teacher) · log softmax(student), the mean over the queries.

    Both (q, d), divided by the temperature. No gradient reaches the teacher.
    """
    shares = functional.softmax(teacher.detach(), dim=-1)
    return -(shares * functional.log_softmax(student, dim=-1)).sum(dim=-1).mean()


def kl_div(group_scores: Tensor, teacher: Tensor) -> Tensor:
    """Return the cross-entropy between a teacher's shares and a group's scores, both (q, g).

    teacher: shares that sum to 1. FlagEmbedding calls it kl_div; it differs from the
    divergence by the teacher's entropy, which has no gradient.
    """
    return -(teacher * functional.log_softmax(group_scores, dim=-1)).sum(dim=-1).mean()


def m3_kd_loss(scores: Tensor, targets: Tensor, teacher: Tensor) -> Tensor:
    """Return Σ_g of the teacher's share times each group member's InfoNCE.

    scores: (q, d). targets: (q,) the column of a group's first passage, the others follow it.
    teacher: (q, g) shares. Each member competes with all candidates but the members before it.
    """
    total = scores.new_zeros(())
    for member in range(teacher.shape[1]):
        column = targets + member
        each = functional.cross_entropy(scores, column, reduction="none")
        total = total + (teacher[:, member] * each).mean()
        scores = scores.scatter(1, column.unsqueeze(1), torch.finfo(scores.dtype).min)
    return total


def m3_loss(
    scores: ModeScores,
    targets: Tensor,
    *,
    settings: LossSettings,
    distill: bool = False,
    teacher: Tensor | None = None,
    excluded: Tensor | None = None,
) -> Losses:
    """Return the loss of one step and its parts.

    With s = Σ_m w_m·s_m over the modes present, the loss is the mean of the modes' losses
    (the sparse one times ``sparse_share``) and of the ensemble's; with ``distill``, the mean
    of that and of the modes' distillation from the ensemble. A single mode has no ensemble.

    targets: (q,) the column of each query's positive; its group's other passages follow it.
    teacher: (q, g) scores of an outside teacher, any scale. excluded: (q, d) True where a
    candidate is no negative. Raises TrainingError if there is nothing to tell apart.
    """
    modes = {mode: one / settings.temperature for mode, one in scores.present().items()}
    if not modes or next(iter(modes.values())).shape[1] < 2:
        raise TrainingError(
            "A step expects at least two candidate passages, or its loss is 0 and teaches "
            "nothing. Give the examples negatives, or put more queries into a batch."
        )
    if len(modes) > 1:
        weights = settings.ensemble
        modes["ensemble"] = sum(
            (getattr(weights, mode) * one for mode, one in modes.items()), start=torch.zeros(())
        )
    if excluded is not None:
        modes = {mode: one.masked_fill(excluded, EXCLUDED) for mode, one in modes.items()}
    shares = None if teacher is None else functional.softmax(teacher.detach(), dim=-1)
    parts = {
        mode: _contrast(one, targets, shares=shares, settings=settings)
        for mode, one in modes.items()
    }
    total = _weighted_mean(parts, settings)
    if distill and "ensemble" in modes:
        taught = {
            mode: self_distillation(one, modes["ensemble"])
            for mode, one in modes.items()
            if mode != "ensemble"
        }
        total = (total + _weighted_mean(taught, settings)) / 2
        parts |= {f"distill_{mode}": one for mode, one in taught.items()}
    return Losses(total, parts)


def _contrast(
    scores: Tensor, targets: Tensor, *, shares: Tensor | None, settings: LossSettings
) -> Tensor:
    if shares is None:
        return info_nce(scores, targets)
    if settings.teacher == "m3_kd_loss":
        return m3_kd_loss(scores, targets, shares)
    group = targets.unsqueeze(1) + torch.arange(shares.shape[1], device=targets.device)
    return kl_div(scores.gather(1, group), shares) + info_nce(scores, targets)


def _weighted_mean(parts: Mapping[str, Tensor], settings: LossSettings) -> Tensor:
    weighted = [
        settings.sparse_share * loss if mode == "sparse" and len(parts) > 1 else loss
        for mode, loss in parts.items()
    ]
    return torch.stack(weighted).mean()
