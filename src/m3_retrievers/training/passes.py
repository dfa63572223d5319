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
from m3_retrievers.encoder.pieces import Piece

Batch = TypeVar("Batch")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Passes:
    """How texts are run: sorted by length, ``tokens`` tokens at a time, padding counted.

    caching: what a pass holds for its gradient is forgotten, and made again on the way back.
    """

    tokens: int
    caching: bool

    def __call__(
        self,
        pieces: Sequence[Piece],
        run: Callable[[Batch], Out],
        *,
        join: Callable[[Sequence[Piece]], Batch],
    ) -> tuple[Tensor, list[tuple[Batch, Out]]]:
        """Return (n,) the piece of each row of the batches, and each batch with what it gave.

        join: makes a batch of pieces.
        """
        plan = plan_batches(
            np.array([len(piece.ids) for piece in pieces], np.int64), budget=self.tokens
        )
        parts: list[tuple[Batch, Out]] = []
        for rows in plan:
            batch = join([pieces[row] for row in rows])
            once = partial(checkpoint, run, use_reentrant=False) if self.caching else run
            parts.append((batch, once(batch)))
        return torch.from_numpy(np.concatenate(plan)), parts
