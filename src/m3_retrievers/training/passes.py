"""Texts through a model with gradients, so many tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from m3_retrievers.encoder.batching import plan_batches
from m3_retrievers.encoder.forward import Padded, pad
from m3_retrievers.encoder.pieces import Piece

Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Passes:
    """How texts are run: sorted by length, ``tokens`` padded tokens at a time.

    caching: what a pass holds for its gradient is forgotten, and made again on the way back.
    """

    tokens: int
    caching: bool
    pad_id: int

    def __call__(
        self, pieces: Sequence[Piece], run: Callable[[Padded], Out], *, device: torch.device
    ) -> tuple[Tensor, list[tuple[Padded, Out]]]:
        """Return (n,) the piece of each row of the batches, and each batch with what it gave."""
        plan = plan_batches(
            np.array([len(piece.ids) for piece in pieces], np.int64), budget=self.tokens
        )
        parts: list[tuple[Padded, Out]] = []
        for rows in plan:
            batch = pad([pieces[row] for row in rows], pad_id=self.pad_id, device=device)
            once = partial(checkpoint, run, use_reentrant=False) if self.caching else run
            parts.append((batch, once(batch)))
        return torch.from_numpy(np.concatenate(plan)).to(device), parts
