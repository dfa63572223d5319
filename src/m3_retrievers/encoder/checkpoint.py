"""A model in memory: backbone, heads and tokenizer, checked while they are loaded."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from m3_retrievers.encoder.adapter import merge_into
from m3_retrievers.encoder.e5 import (
    PackedModel,
    load_packed,
    packed_reader,
    packed_tensors,
    packed_tokenizer,
)
from m3_retrievers.encoder.heads import Heads, load_heads
from m3_retrievers.encoder.mini import CHARACTER_MAP
from m3_retrievers.encoder.pieces import Frame
from m3_retrievers.encoder.precision import DTYPES, Precision
from m3_retrievers.encoder.source import Pooling, Source
from m3_retrievers.encoder.threads import fit_threads
from m3_retrievers.encoder.tokenizer import read_tokenizer
from m3_retrievers.encoder.transformer import WORDS, Shape, Transformer
from m3_retrievers.encoder.vocabulary import read_vocabulary
from m3_retrievers.encoder.weights import add_delta, of_module, read_backbone
from m3_retrievers.errors import CheckpointError, InputError

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
    hidden_size: int
    max_length: int
    dropped_ids: tuple[int, ...]
    unknown_id: int | None
    blank_ids: tuple[int, ...]
    pad_id: int
    vocabulary_size: int

    @property
    def is_packed(self) -> bool:
        """Whether the backbone takes texts end to end, over packed weights."""
        return isinstance(self.backbone, Transformer)


def load(source: Source, *, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """Return the model in memory as transformers' module, which can be trained.

    Raises CheckpointError where a file is torn or incomplete.
    """
    backbone = _module(source, dtype)
    sizes = _of_config(backbone.config)
    return _checkpoint(source, backbone.to(device), full_tokenizer(source), sizes, device)


def load_for_inference(source: Source, *, device: torch.device, precision: Precision) -> Checkpoint:
    """Return the model in memory in its fastest form, packed for its device.

    What is no plain BERT or XLM-RoBERTa stays transformers' module. Raises CheckpointError where a
    file is torn or incomplete, InputError where the precision expects a plain encoder.
    """
    if device.type == "cpu":
        fit_threads()
    dtype = DTYPES[precision]
    packed = None if source.packed is None else PackedModel(source.packed)
    # widened as texts ask for them, where texts are
    words = packed.words(dtype=dtype) if packed is not None and device.type == "cpu" else None
    found = _tensors(source, packed, dtype, without=(WORDS,) if words else ())
    if found is None:
        module = _module(source, dtype)
        found = of_module(module)
        if found is None and precision == "int8":
            raise InputError(
                f"precision='int8' expects a BERT or an XLM-RoBERTa, got {source.name!r}, a "
                f"{type(module).__name__}. Use 'fp32' or 'bf16'."
            )
        if found is None:
            sizes = _of_config(module.config)
            return _checkpoint(source, module.to(device), _reader(source, packed), sizes, device)
        del module
    shape, state = found
    backbone = Transformer(shape, state, precision=precision, device=device, words=words)
    reserved = shape.pad_id + 1 if shape.past_padding else 0
    sizes = _Sizes(shape.hidden, shape.vocabulary, shape.positions - reserved)
    return _checkpoint(source, backbone, _reader(source, packed), sizes, device)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Of a backbone: width of its states, rows of its vocabulary, tokens that have positions."""

    hidden: int
    vocabulary: int
    positions: int


def _of_config(config: Any) -> _Sizes:
    # RoBERTa's family counts positions from padding + 1
    reserved = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    return _Sizes(
        config.hidden_size, config.vocab_size, int(config.max_position_embeddings) - reserved
    )


def _module(source: Source, dtype: torch.dtype) -> Any:
    """Return transformers' module on the CPU; a delta is added in float32."""
    read_as = dtype if source.adapter is None else torch.float32
    if source.packed is None:
        from m3_retrievers.encoder.pretrained import load_backbone  # transformers: 2 s to import

        backbone = load_backbone(source.folder, read_as)
    else:
        backbone = load_packed(source.packed, read_as)
    if source.adapter is not None:
        merge_into(source.adapter, backbone)
        backbone.to(dtype)
    return backbone


def _tensors(
    source: Source, packed: PackedModel | None, dtype: torch.dtype, *, without: Container[str]
) -> tuple[Shape, dict[str, Tensor]] | None:
    """Return sizes and tensors of a plain encoder, read without transformers' module."""
    if packed is None:
        found = read_backbone(source.folder, dtype)
    else:
        found = packed_tensors(packed, without=without)
    if found is not None and source.adapter is not None:
        add_delta(source.adapter, found[1])
    return found


def full_tokenizer(source: Source) -> Any:
    """Return a model's tokenizer as transformers has it."""
    if source.packed is not None:
        return packed_tokenizer(PackedModel(source.packed), CHARACTER_MAP)
    from m3_retrievers.encoder.pretrained import load_tokenizer

    return load_tokenizer(source.folder)


def _reader(source: Source, packed: PackedModel | None) -> Any:
    """Return what reads texts just as that tokenizer does, without transformers where it can."""
    if packed is not None:
        return packed_reader(packed, CHARACTER_MAP)
    return read_tokenizer(source.folder) or full_tokenizer(source)


def _checkpoint(
    source: Source, backbone: Any, tokenizer: Any, sizes: _Sizes, device: torch.device
) -> Checkpoint:
    """Return a backbone that is on its device with heads, tokenizer and constants."""
    heads = load_heads(source.heads_folder, source.heads, hidden_size=sizes.hidden)
    _check_tokenizer(tokenizer, source, vocabulary_size=sizes.vocabulary)
    known = read_vocabulary(
        tokenizer, max_length=_longest(sizes, source), vocabulary_size=sizes.vocabulary
    )
    return Checkpoint(
        backbone=backbone,
        heads=heads.to(device),
        tokenizer=tokenizer,
        frame=known.frame,
        pooling=source.pooling,
        hidden_size=sizes.hidden,
        max_length=known.max_length,
        dropped_ids=known.dropped_ids,
        unknown_id=known.unknown_id,
        blank_ids=known.blank_ids,
        pad_id=tokenizer.pad_token_id,
        vocabulary_size=sizes.vocabulary,
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


def _longest(sizes: _Sizes, source: Source) -> int:
    """Return how many tokens fit."""
    limit = min(sizes.positions, source.max_length or 2**31)
    if limit < _SHORTEST:
        raise CheckpointError(
            f"{source.folder} is expected to take texts of at least {_SHORTEST} tokens, and has "
            f"positions for {limit}. Check max_position_embeddings in its config.json."
        )
    return limit
