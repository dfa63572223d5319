"""The model as it is trained: the encoder's own forward pass, with gradients."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from m3_retrievers.encoder.checkpoint import Checkpoint
from m3_retrievers.encoder.forward import Batch, Pass, hidden_states, pack, project
from m3_retrievers.encoder.heads import Heads
from m3_retrievers.encoder.pieces import Piece
from m3_retrievers.training.collate import Step
from m3_retrievers.training.contrast import Contrast
from m3_retrievers.training.losses import Losses, self_distillation
from m3_retrievers.training.passes import Passes
from m3_retrievers.training.prior import LexicalPrior
from m3_retrievers.training.settings import LossSettings, Mode, TrainSettings
from m3_retrievers.training.similarity import Encoded, Terms, TokenVectors, mode_scores


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """The losses of a step, and how much of the sparse output is alive.

    active: share of the tokens (SPLADE: of the texts) with a term weight above 0, None without a
    sparse output. figures: what else is logged, by name.
    """

    losses: Losses
    active: float | None
    figures: Mapping[str, float] = field(default_factory=dict)


class M3Module(nn.Module):
    """Backbone and heads of a checkpoint, encoding pieces with gradients.

    modes: the outputs that are computed. loss: its constants. prior: what the loss's
    ``prior_share`` holds term weights to.
    """

    def __init__(
        self,
        model: Checkpoint,
        *,
        modes: Sequence[Mode],
        loss: LossSettings,
        sub_batch_tokens: int = 4096,
        gradient_caching: bool = False,
        precision: torch.dtype = torch.float32,
        in_batch_negatives: bool = True,
        cross_device_negatives: bool = False,
        prior: LexicalPrior | None = None,
    ) -> None:
        super().__init__()
        self.prior = prior
        # what a delta is added to stays; the heads are trained, so the anchor keeps its own
        self.first_heads = copy.deepcopy(model.heads).requires_grad_(False)
        self.backbone = model.backbone
        self.heads = model.heads
        self.checkpoint = model
        self.modes = tuple(modes)
        self.loss = loss
        self.precision = precision
        self._passes = Passes(sub_batch_tokens, gradient_caching)
        self._contrast = Contrast(loss, in_batch_negatives, cross_device_negatives)

    @classmethod
    def of(
        cls, model: Checkpoint, settings: TrainSettings, *, prior: LexicalPrior | None = None
    ) -> M3Module:
        """Return the module for a run's settings."""
        return cls(
            model,
            modes=settings.modes,
            loss=settings.loss,
            sub_batch_tokens=settings.sub_batch_tokens,
            gradient_caching=settings.gradient_caching,
            precision=torch.bfloat16 if settings.precision == "bfloat16" else torch.float32,
            in_batch_negatives=settings.in_batch_negatives,
            cross_device_negatives=settings.cross_device_negatives,
            prior=prior,
        )

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def forward(self, step: Step, distill: bool = False) -> StepResult:
        """Return the losses of one step; ``distill`` lets the ensemble teach the modes."""
        queries, passages = self.encode(step.queries), self.encode(step.passages)
        active = _active(queries, passages)
        held = self._held(step, queries, passages)
        losses = self._contrast(step, queries, passages, device=self.device, distill=distill)
        anchors = {f"anchor_{mode}": share for mode, share in self.loss.anchors.items()}
        shares = {"prior": self.loss.prior_share, **anchors}
        total = sum((shares[name] * one for name, one in held.items()), start=losses.total)
        return StepResult(Losses(total, {**losses.parts, **held}), active)

    def _held(self, step: Step, queries: Encoded, passages: Encoded) -> dict[str, Tensor]:
        """Return the losses that keep the model near lexical matching, and near its beginning."""
        found: dict[str, Tensor] = {}
        if self.prior is not None and queries.terms is not None and passages.terms is not None:
            sides = (queries.terms, passages.terms)
            found["prior"] = torch.stack([self.prior.loss(one) for one in sides]).mean()
        if self.loss.anchors:
            with torch.no_grad(), self._as_it_began():
                first = mode_scores(
                    *(self.encode(one, first=True) for one in (step.queries, step.passages))
                )
            now = mode_scores(queries, passages).present()
            for mode, teacher in first.present().items():
                if mode in self.loss.anchors:
                    tau = self.loss.temperature
                    found[f"anchor_{mode}"] = self_distillation(now[mode] / tau, teacher / tau)
        return found

    def _as_it_began(self) -> AbstractContextManager[None]:
        """Leave out the low-rank delta; TrainSettings admits an anchor with one alone."""
        without: AbstractContextManager[None] = self.backbone.disable_adapter()  # type: ignore[operator]
        return without

    def encode(self, pieces: Sequence[Piece], *, first: bool = False) -> Encoded:
        """Return the representations of n pieces, in their order, with gradients.

        Pieces are encoded sorted by length, ``sub_batch_tokens`` padded tokens at a time.
        first: by the heads as they were before the first step.
        """
        heads = self.first_heads if first else self.heads
        passes = replace(self._passes, caching=self._passes.caching and not first)
        join = partial(pack, device=self.device)
        order, parts = passes(pieces, partial(self._run, heads=heads), join=join)
        return self._joined(order.to(self.device), parts)

    def _run(self, batch: Batch, heads: Heads) -> Pass:
        model = replace(self.checkpoint, backbone=self.backbone, heads=heads)
        low = self.precision != torch.float32
        with torch.autocast(self.device.type, dtype=self.precision, enabled=low):
            hidden = hidden_states(model, batch)
        return project(model, hidden, batch, outputs=self.modes)

    def _joined(self, at: Tensor, parts: list[tuple[Batch, Pass]]) -> Encoded:
        """Return the sub-batches as one record, in the pieces' own order.

        at: the piece of each row of the parts.
        """
        back = torch.argsort(at)
        dense = terms = colbert = None
        if "dense" in self.modes:
            dense = torch.cat([one.dense for _, one in parts if one.dense is not None])[back]
        if "sparse" in self.modes:
            terms = self._terms(at, parts)
        if "colbert" in self.modes:
            vectors = torch.cat([one.vectors for _, one in parts if one.vectors is not None])
            sizes = torch.tensor(
                [
                    length - own
                    for batch, _ in parts
                    for length, own in zip(batch.lengths, batch.cls_counts, strict=True)
                ],
                device=self.device,
            )
            rows = torch.repeat_interleave(at, sizes)
            offsets = torch.cat([sizes.new_zeros(1), sizes[back].cumsum(0)])
            # a stable sort by piece keeps each piece's tokens in their order
            colbert = TokenVectors(vectors[torch.argsort(rows, stable=True)], offsets)
        return Encoded(len(at), dense, terms, colbert)

    def _terms(self, at: Tensor, parts: list[tuple[Batch, Pass]]) -> Terms:
        weights = torch.cat([one.weights for _, one in parts if one.weights is not None])
        ids = torch.cat([batch.ids for batch, _ in parts])
        lengths = [length for batch, _ in parts for length in batch.lengths]
        rows = torch.repeat_interleave(at, torch.tensor(lengths, device=self.device))
        dropped = torch.tensor(self.checkpoint.dropped_ids, device=self.device)
        kept = ~torch.isin(ids, dropped)
        return Terms(weights[kept], ids[kept], rows[kept])


def _active(*sides: Encoded) -> float | None:
    weights = [one.terms.weights for one in sides if one.terms is not None]
    if not weights:
        return None
    return float((torch.cat(weights).detach() > 0).float().mean())
