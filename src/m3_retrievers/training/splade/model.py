"""SPLADE as it is trained: the encoder's own weights, with gradients, and its losses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from m3_retrievers.encoder.forward import Padded, pad
from m3_retrievers.encoder.pieces import Piece
from m3_retrievers.encoder.splade_model import SpladeModel, last_states
from m3_retrievers.training.collate import Step
from m3_retrievers.training.contrast import Contrast
from m3_retrievers.training.losses import Losses
from m3_retrievers.training.model import StepResult
from m3_retrievers.training.passes import Passes
from m3_retrievers.training.settings import LossSettings, TrainSettings
from m3_retrievers.training.similarity import Encoded, Terms
from m3_retrievers.training.splade.pooling import pooled_terms
from m3_retrievers.training.splade.sparsity import flops_loss


class SpladeModule(nn.Module):
    """A masked-language model that encodes pieces as SPLADE does, with gradients.

    The loss of a step is the contrast of inner products plus λ_q and λ_d times the FLOPS losses
    of queries and passages (SPLADE, arXiv 2107.05720, section 3.2).

    table: (v,) what weighs the tokens of queries; None where the model does. flops_scale: (v,) of
    the FLOPS losses.
    """

    table: Tensor | None
    flops_scale: Tensor

    def __init__(
        self,
        model: SpladeModel,
        settings: TrainSettings,
        *,
        table: Tensor | None = None,
        flops_scale: Tensor | None = None,
    ) -> None:
        super().__init__()
        assert model.body is not None
        assert model.decoder is not None
        self.model = model
        self.body, self.decoder = model.body, model.decoder
        self.settings = settings.splade
        self.register_buffer("table", table, persistent=False)
        scale = torch.ones(model.vocabulary_size) if flops_scale is None else flops_scale
        self.register_buffer("flops_scale", scale, persistent=False)
        self._low_precision = settings.precision == "bfloat16"
        self._passes = Passes(settings.sub_batch_tokens, settings.gradient_caching)
        self._contrast = Contrast(
            LossSettings(temperature=settings.splade.temperature),
            settings.in_batch_negatives,
            settings.cross_device_negatives,
        )

    @property
    def device(self) -> torch.device:
        return self.decoder.weight.device

    def forward(self, step: Step, flops_share: float = 1.0) -> StepResult:
        """Return the losses of one step. flops_share: how much of λ_q and λ_d counts by now."""
        encode = self.encode if self.table is None else self._weighed
        queries, passages = encode(step.queries), self.encode(step.passages)
        found = self._contrast(step, queries, passages, device=self.device)
        parts, total = {**found.parts}, found.total
        shares = {"query": self.settings.query_flops, "document": self.settings.document_flops}
        figures = {}
        for side, texts in {"query": queries, "document": passages}.items():
            terms = _terms(texts)
            figures[f"{side}_terms"] = len(terms.ids) / texts.count
            if side == "document" or self.table is None:  # a table cannot be made sparser
                loss = flops_loss(terms, texts.count, self.flops_scale)
                parts[f"{side}_flops"] = loss
                total = total + flops_share * shares[side] * loss
        alive = len(torch.unique(_terms(passages).rows)) / passages.count
        return StepResult(Losses(total, parts), alive, figures)

    def encode(self, pieces: Sequence[Piece]) -> Encoded:
        """Return the terms of n pieces with weights above 0, with gradients."""
        join = partial(pad, pad_id=self.model.pad_id, device=self.device)
        order, parts = self._passes(pieces, self._run, join=join)
        order = order.to(self.device)
        start, rows = 0, []
        for batch, terms in parts:
            rows.append(order[start + terms.rows])
            start += len(batch.ids)
        weights = torch.cat([terms.weights for _, terms in parts])
        ids = torch.cat([terms.ids for _, terms in parts])
        return Encoded(len(pieces), terms=Terms(weights, ids, torch.cat(rows)))

    def _run(self, batch: Padded) -> Terms:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._low_precision):
            states = last_states(self.body, batch)
        return pooled_terms(
            self.decoder,
            states[batch.mask].float(),
            batch.mask.sum(1),
            pooling=self.model.pooling,
            activation=self.model.activation,
        )

    def _weighed(self, pieces: Sequence[Piece]) -> Encoded:
        """Return n queries as the table weighs their own tokens, each once."""
        assert self.table is not None
        before, after = len(self.model.frame.before), len(self.model.frame.after)
        own = [np.unique(piece.ids[before : len(piece.ids) - after]) for piece in pieces]
        ids = torch.from_numpy(np.concatenate(own)).to(self.device)
        rows = np.repeat(np.arange(len(own)), [len(one) for one in own])
        terms = Terms(self.table[ids], ids, torch.from_numpy(rows).to(self.device))
        return Encoded(len(pieces), terms=terms)


def _terms(texts: Encoded) -> Terms:
    assert texts.terms is not None
    return texts.terms
