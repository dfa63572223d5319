"""One forward pass: pieces in, packed outputs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from m3_retrievers.encoder.checkpoint import Checkpoint
from m3_retrievers.encoder.heads import Heads
from m3_retrievers.encoder.pieces import Piece
from m3_retrievers.encoder.source import Pooling
from m3_retrievers.types.representations import Output


class Projecting(Protocol):
    """What ``project`` asks of a model, whose backbone may run elsewhere."""

    @property
    def heads(self) -> Heads: ...
    @property
    def pooling(self) -> Pooling: ...


@dataclass(frozen=True, slots=True, eq=False)
class Padded:
    """A padded batch of b pieces: ids, mask (true tokens) and cls_places, all (b, l)."""

    ids: Tensor
    mask: Tensor
    cls_places: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """What one forward pass gives for b pieces; None where it was not asked for.

    dense (b, h) unit rows; weights (t,) of every token of every piece, end to end;
    vectors (t', d) unit rows of the tokens that are no CLS, end to end. All float32.
    """

    dense: Tensor | None
    weights: Tensor | None
    vectors: Tensor | None


def pad(pieces: Sequence[Piece], *, pad_id: int, device: torch.device) -> Padded:
    """Return the pieces as one batch, padded on the right."""
    length = max(len(piece.ids) for piece in pieces)
    ids = np.full((len(pieces), length), pad_id, np.int64)
    mask = np.zeros((len(pieces), length), bool)
    cls_places = np.zeros_like(mask)
    for row, piece in enumerate(pieces):
        ids[row, : len(piece.ids)] = piece.ids
        mask[row, : len(piece.ids)] = True
        cls_places[row, piece.cls_places] = True
    return Padded(*(torch.from_numpy(part).to(device) for part in (ids, mask, cls_places)))


def forward(
    model: Checkpoint,
    batch: Padded,
    *,
    outputs: Sequence[Output],
    truncate_dim: int | None = None,
) -> Pass:
    """Return the outputs asked for, from a single run of the backbone."""
    hidden = hidden_states(model, batch)
    return project(model, hidden, batch, outputs=outputs, truncate_dim=truncate_dim)


def hidden_states(model: Checkpoint, batch: Padded) -> Tensor:
    """Return (b, l, h) the backbone's last hidden states, float32."""
    # a full batch needs no mask, and attention without one is faster
    mask = None if bool(batch.mask.all()) else batch.mask.long()
    hidden: Tensor = model.backbone(input_ids=batch.ids, attention_mask=mask).last_hidden_state
    return hidden.float()


def project(
    model: Projecting,
    hidden: Tensor,
    batch: Padded,
    *,
    outputs: Sequence[Output],
    truncate_dim: int | None = None,
) -> Pass:
    """Return the outputs asked for, from the hidden states (b, l, h) of a batch."""
    dense = weights = vectors = None
    if "dense" in outputs:
        places = batch.cls_places if model.pooling == "cls" else batch.mask
        dense = functional.normalize(pool(hidden, places)[..., :truncate_dim], dim=-1)
    if "sparse" in outputs:
        weights = model.heads.term_weights(hidden[batch.mask])
    if "colbert" in outputs:
        vectors = model.heads.token_vectors(hidden[batch.mask & ~batch.cls_places])
    return Pass(dense, weights, vectors)


def pool(hidden: Tensor, places: Tensor) -> Tensor:
    """Return (b, h): the mean of the states (b, l, h) at the places (b, l) that are true."""
    share = places.to(hidden.dtype)
    share = share / share.sum(dim=1, keepdim=True)
    return torch.einsum("blh,bl->bh", hidden, share)
