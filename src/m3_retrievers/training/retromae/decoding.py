"""RetroMAE's model: the encoder with its masked-language head, and a decoder of one layer.

Enhanced decoding (paper, section 3.3): queries are the sentence's vector plus a position, keys
and values the tokens' embeddings with that vector in place of CLS. Each row of the decoder has a
mask of its own, so every token is predicted, each from another view of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from m3_retrievers.encoder.forward import Padded, pool
from m3_retrievers.training.retromae.masking import visible_rows

# Hidden states turned into logits at once: 1,024 of them over 250,002 pieces are 1 GB.
_LOGITS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, eq=False)
class MaskedBatch:
    """Pieces as they are and as the encoder reads them; masked: (b, l) what it must predict."""

    clean: Padded
    shown: Tensor
    masked: Tensor

    def to(self, device: torch.device) -> MaskedBatch:
        """Return the batch on a device."""
        clean = self.clean
        moved = Padded(clean.ids.to(device), clean.mask.to(device), clean.cls_places.to(device))
        return MaskedBatch(moved, self.shown.to(device), self.masked.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class RetroMAELosses:
    """Mean cross-entropies: the encoder's over the words it lost, the decoder's over all tokens."""

    encoder: Tensor
    decoder: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised: the sum of both."""
        return self.encoder + self.decoder


class RetroMAEModule(nn.Module):
    """The encoder with its masked-language head, and the one-layer decoder.

    decoder_mask: share of the tokens that each row of the decoder must do without.
    """

    def __init__(self, masked_model: Any, *, decoder_mask: float, pooling: str) -> None:
        super().__init__()
        self.model = masked_model
        self.pooling = pooling
        self.decoder_mask = decoder_mask
        config = masked_model.config
        self.decoder = DecoderLayer(
            config.hidden_size, config.num_attention_heads, config.intermediate_size
        )
        for name, parameter in self.backbone.named_parameters():
            if "pooler" in name.split("."):
                # no loss comes from the pooler; an unused parameter would stall several devices
                parameter.requires_grad_(False)

    @property
    def backbone(self) -> Any:
        """The encoder that is kept."""
        return self.model.base_model

    def forward(self, batch: MaskedBatch) -> RetroMAELosses:
        """Return the losses of a batch."""
        clean = batch.clean
        hidden = self.backbone(
            input_ids=batch.shown, attention_mask=clean.mask.long()
        ).last_hidden_state
        encoder = self._loss(hidden[batch.masked], clean.ids[batch.masked])
        places = clean.cls_places if self.pooling == "cls" else clean.mask
        sentence = pool(hidden[places], places.sum(1).tolist())
        decoded = self.decode(sentence, clean)
        predicted = clean.mask & ~clean.cls_places
        predicted[torch.arange(len(predicted)), clean.mask.sum(1) - 1] = False  # SEP
        return RetroMAELosses(encoder, self._loss(decoded[predicted], clean.ids[predicted]))

    def decode(self, sentence: Tensor, clean: Padded) -> Tensor:
        """Return (b, l, h): each position rebuilt from the sentence's vector and its own view."""
        embeddings = self.backbone.embeddings
        stream = embeddings(input_ids=clean.ids)
        stream = torch.cat([sentence[:, None], stream[:, 1:]], dim=1)
        length = clean.ids.shape[1]
        config = self.backbone.config
        # RoBERTa's family counts positions from padding + 1
        first = config.pad_token_id + 1 if "roberta" in config.model_type else 0
        positions = torch.arange(first, first + length, device=clean.ids.device)
        queries = sentence[:, None] + embeddings.position_embeddings(positions)
        seen = visible_rows(clean.mask, self.decoder_mask, None)
        decoded: Tensor = self.decoder(queries, stream, seen)
        return decoded

    def _loss(self, hidden: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean cross-entropy of hidden states (t, h), some logits at a time."""
        head = self.model.cls if hasattr(self.model, "cls") else self.model.lm_head

        def part(states: Tensor, ids: Tensor) -> Tensor:
            return functional.cross_entropy(head(states).float(), ids, reduction="sum")

        sums = [
            checkpoint(part, states, ids, use_reentrant=False)
            for states, ids in zip(
                torch.split(hidden, _LOGITS_AT_ONCE),
                torch.split(wanted, _LOGITS_AT_ONCE),
                strict=True,
            )
        ]
        return torch.stack(sums).sum() / max(1, len(wanted))


class DecoderLayer(nn.Module):
    """One transformer layer whose queries and keys come from different streams."""

    def __init__(self, width: int, attention_heads: int, inner: int) -> None:
        super().__init__()
        self.attention_heads = attention_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm_attention = nn.LayerNorm(width)
        self.norm_out = nn.LayerNorm(width)

    def forward(self, queries: Tensor, stream: Tensor, seen: Tensor) -> Tensor:
        """Return (b, l, h) from queries and stream (b, l, h) under the mask seen (b, l, l)."""
        q, k, v = (
            part(states).unflatten(-1, (self.attention_heads, -1)).transpose(1, 2)  # (b, a, l, h/a)
            for part, states in ((self.query, queries), (self.key, stream), (self.value, stream))
        )
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
        mixed = self.norm_attention(queries + self.out(attended.transpose(1, 2).flatten(2)))
        result: Tensor = self.norm_out(mixed + self.down(functional.gelu(self.up(mixed))))
        return result
