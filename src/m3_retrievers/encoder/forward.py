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
from m3_retrievers.encoder.transformer import Transformer
from m3_retrievers.types.representations import Output


class Projecting(Protocol):
    """What ``project`` asks of a model, whose backbone may run elsewhere."""

    @property
    def heads(self) -> Heads: ...
    @property
    def pooling(self) -> Pooling: ...


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """b pieces end to end: ids (t,), and how many tokens each has, and how many of them are a CLS.

    cls_places, other_places: where the tokens that are a CLS lie, and the others.
    """

    ids: Tensor
    lengths: tuple[int, ...]
    cls_counts: tuple[int, ...]
    cls_places: Tensor
    other_places: Tensor


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

    @property
    def device_type(self) -> str:
        """Where it lies; on the processor where nothing was asked for."""
        return next((one.device.type for one in self._all() if one is not None), "cpu")

    def to_processor(self) -> Pass:
        """Return the same on the processor; the copy is not waited for."""
        return Pass(
            *(one if one is None else one.to("cpu", non_blocking=True) for one in self._all())
        )

    def _all(self) -> tuple[Tensor | None, ...]:
        return self.dense, self.weights, self.vectors


def pack(pieces: Sequence[Piece], *, device: torch.device) -> Batch:
    """Return the pieces as one batch without padding."""
    lengths = tuple(len(piece.ids) for piece in pieces)
    ids = np.concatenate([piece.ids for piece in pieces])
    is_cls = np.zeros(len(ids), bool)
    first = 0
    for piece, length in zip(pieces, lengths, strict=True):
        is_cls[first + piece.cls_places] = True
        first += length
    # places and no mask: an accelerator would have to be waited for, to learn how many they are
    moved = (
        torch.from_numpy(one).to(device)
        for one in (ids, np.flatnonzero(is_cls), np.flatnonzero(~is_cls))
    )
    counts = tuple(len(piece.cls_places) for piece in pieces)
    return Batch(next(moved), lengths, counts, *moved)


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
    batch: Batch,
    *,
    outputs: Sequence[Output],
    truncate_dim: int | None = None,
) -> Pass:
    """Return the outputs asked for, from a single run of the backbone."""
    hidden = hidden_states(model, batch)
    return project(model, hidden, batch, outputs=outputs, truncate_dim=truncate_dim)


def hidden_states(model: Checkpoint, batch: Batch) -> Tensor:
    """Return (t, h) the backbone's last hidden states, float32."""
    if isinstance(model.backbone, Transformer):
        packed: Tensor = model.backbone(input_ids=batch.ids, lengths=batch.lengths)
        return packed.float()
    ids, mask = batch.ids[None], None
    if len(batch.lengths) > 1:  # a single text needs no mask, and attention without is faster
        count = torch.tensor(batch.lengths, device=ids.device)[:, None]
        mask = torch.arange(max(batch.lengths), device=ids.device) < count  # (b, l)
        ids = ids.new_full(mask.shape, model.pad_id).masked_scatter(mask, batch.ids)
        if bool(mask.all()):
            return _run(model.backbone, ids, None).flatten(0, 1)
    states = _run(model.backbone, ids, mask)
    return states[0] if mask is None else states[mask]


def _run(backbone: torch.nn.Module, ids: Tensor, mask: Tensor | None) -> Tensor:
    attended = None if mask is None else mask.long()
    states: Tensor = backbone(input_ids=ids, attention_mask=attended).last_hidden_state
    return states.float()


def project(
    model: Projecting,
    hidden: Tensor,
    batch: Batch,
    *,
    outputs: Sequence[Output],
    truncate_dim: int | None = None,
) -> Pass:
    """Return the outputs asked for, from the hidden states (t, h) of a batch."""
    dense = weights = vectors = None
    if "dense" in outputs:
        if model.pooling == "cls":
            pooled = pool(hidden[batch.cls_places], batch.cls_counts)
        else:
            pooled = pool(hidden, batch.lengths)
        dense = functional.normalize(pooled[..., :truncate_dim], dim=-1)
    if "sparse" in outputs:
        weights = model.heads.term_weights(hidden)
    if "colbert" in outputs:
        vectors = model.heads.token_vectors(hidden[batch.other_places])
    return Pass(dense, weights, vectors)


def pool(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Return (b, h): the mean of each piece's rows, which lie end to end, so many a piece."""
    if all(count == 1 for count in counts):
        return rows
    return torch.stack([part.mean(dim=0) for part in torch.split(rows, list(counts))])
