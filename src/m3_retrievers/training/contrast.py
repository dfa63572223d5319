"""The contrast of a step: each query's positive against the other candidates, as losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from m3_retrievers.training.collate import Step
from m3_retrievers.training.gather import gather_encoded, gather_rows
from m3_retrievers.training.losses import Losses, m3_loss
from m3_retrievers.training.settings import LossSettings
from m3_retrievers.training.similarity import Encoded, mode_scores


@dataclass(frozen=True, slots=True)
class Contrast:
    """Which passages are candidates, and the constants of the loss.

    in_batch: whether other queries' passages are candidates; cross_device: those of the other
    devices, too.
    """

    loss: LossSettings
    in_batch: bool = True
    cross_device: bool = False

    def __call__(
        self,
        step: Step,
        queries: Encoded,
        passages: Encoded,
        *,
        device: torch.device,
        distill: bool = False,
    ) -> Losses:
        """Return the losses of a step's texts; distill: whether the ensemble teaches the modes."""
        keys, first = step.keys.to(device), 0
        if self.cross_device:
            passages, first = gather_encoded(passages, device=device)
            keys = gather_rows(keys)
        targets = first + step.group_size * torch.arange(queries.count, device=device)
        return m3_loss(
            mode_scores(queries, passages),
            targets,
            settings=self.loss,
            distill=distill,
            teacher=None if step.teacher is None else step.teacher.to(device),
            excluded=excluded(step, keys, targets, in_batch=self.in_batch),
        )


def excluded(step: Step, keys: Tensor, targets: Tensor, *, in_batch: bool) -> Tensor | None:
    """Return (q, d) True where a candidate answers the query itself, or may not be one.

    keys: (d,) of all candidates. None where all of them count.
    """
    known = step.known.to(keys.device)
    same = (keys[None, :, None] == known[:, None, :]).any(-1)  # (q, d)
    group = targets[:, None] + torch.arange(step.group_size, device=keys.device)
    own = torch.zeros_like(same).scatter(1, group, True)
    out = same & ~own if in_batch else ~own
    return out if bool(out.any()) else None
