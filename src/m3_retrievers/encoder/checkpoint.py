"""A model in memory: backbone, heads and tokenizer, checked while they are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from m3_retrievers.encoder.adapter import merge
from m3_retrievers.encoder.e5 import load_packed
from m3_retrievers.encoder.heads import Heads, load_heads
from m3_retrievers.encoder.mini import CHARACTER_MAP
from m3_retrievers.encoder.pieces import Frame
from m3_retrievers.encoder.pretrained import load_backbone, load_tokenizer
from m3_retrievers.encoder.source import Pooling, Source
from m3_retrievers.encoder.vocabulary import read_vocabulary
from m3_retrievers.errors import CheckpointError

# A CLS, a token and a SEP: less cannot hold a text.
_SHORTEST = 3


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A loaded model: backbone and heads on their device, tokenizer, and its constants.

    max_length: tokens a sequence may have, frame included. dropped_ids: vocabulary ids that
    never carry a term weight (CLS, EOS/SEP, padding, unknown). unknown_id: of the token for
    what the vocabulary lacks, None without one. blank_ids: of tokens that stand for white space.
    """

    backbone: nn.Module
    heads: Heads
    tokenizer: Any
    frame: Frame
    pooling: Pooling
    max_length: int
    dropped_ids: tuple[int, ...]
    unknown_id: int | None
    blank_ids: tuple[int, ...]
    pad_id: int
    vocabulary_size: int


def load(source: Source, *, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """Return the model in memory. Raises CheckpointError where a file is torn or incomplete."""
    # a delta is added in float32
    read_as = dtype if source.adapter is None else torch.float32
    if source.packed is None:
        backbone, tokenizer = load_backbone(source.folder, read_as), load_tokenizer(source.folder)
    else:
        backbone, tokenizer = load_packed(source.packed, CHARACTER_MAP, read_as)
    if source.adapter is not None:
        merge(source.adapter, backbone)
        backbone.to(dtype)
    config = backbone.config
    heads = load_heads(source.heads_folder, source.heads, hidden_size=config.hidden_size)
    _check_tokenizer(tokenizer, source, vocabulary_size=config.vocab_size)
    known = read_vocabulary(
        tokenizer, max_length=_longest(config, source), vocabulary_size=config.vocab_size
    )
    return Checkpoint(
        backbone=backbone.to(device),
        heads=heads.to(device),
        tokenizer=tokenizer,
        frame=known.frame,
        pooling=source.pooling,
        max_length=known.max_length,
        dropped_ids=known.dropped_ids,
        unknown_id=known.unknown_id,
        blank_ids=known.blank_ids,
        pad_id=tokenizer.pad_token_id,
        vocabulary_size=config.vocab_size,
    )


def _check_tokenizer(tokenizer: Any, source: Source, *, vocabulary_size: int) -> None:
    if tokenizer.pad_token_id is None:
        raise CheckpointError(
            f"{source.folder} is expected to hold a tokenizer with a padding token, and its has "
            "none. Set pad_token in its tokenizer_config.json."
        )
    size = tokenizer.backend_tokenizer.get_vocab_size()
    if size > vocabulary_size:
        raise CheckpointError(
            f"{source.folder} holds a tokenizer of {size:,} tokens, expected at most the "
            f"{vocabulary_size:,} the backbone has vectors for. Use the tokenizer of this model."
        )


def _longest(config: Any, source: Source) -> int:
    """Return how many tokens fit; RoBERTa's family counts positions from padding + 1."""
    reserved = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    limit = min(int(config.max_position_embeddings) - reserved, source.max_length or 2**31)
    if limit < _SHORTEST:
        raise CheckpointError(
            f"{source.folder} is expected to take texts of at least {_SHORTEST} tokens, and has "
            f"positions for {limit}. Check max_position_embeddings in its config.json."
        )
    return limit
