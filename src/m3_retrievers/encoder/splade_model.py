"""A masked-language model as SPLADE reads it: a text's weight for every term of the vocabulary.

w_t = pool over the text's tokens i of log(1 + relu(logit_i,t)) (Formal et al., SPLADE v2, arXiv
2109.10086, section 3); CLS and SEP are among the tokens. OpenSearch's models take the logarithm
twice (arXiv 2504.14839).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from m3_retrievers.encoder.files import map_tensors, read_json
from m3_retrievers.encoder.forward import Padded
from m3_retrievers.encoder.pieces import Frame, find_frame
from m3_retrievers.encoder.pretrained import load_masked_language_model, load_tokenizer
from m3_retrievers.encoder.splade_source import SpladeActivation, SpladePooling, SpladeSource
from m3_retrievers.errors import CheckpointError

# Logits held at once: 2^22 float32 are 16 MiB, 137 tokens of BERT's vocabulary. A batch of 2,000
# tokens would take 244 MB at once, and 2 GB with XLM-R's.
_LOGITS_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class SpladeModel:
    """One side of a SPLADE model in memory.

    body: ends in the states that the decoder reads; None where ``table`` (v,) weighs a text's
    own tokens. decoder: from a state (h,) to logits (v,). Constants as in ``Checkpoint``.
    """

    body: nn.Module | None
    decoder: nn.Linear | None
    table: Tensor | None
    pooling: SpladePooling
    activation: SpladeActivation
    tokenizer: Any
    frame: Frame
    max_length: int
    unknown_id: int | None
    blank_ids: tuple[int, ...]
    pad_id: int
    vocabulary_size: int


def load_splade(
    source: SpladeSource,
    *,
    pooling: SpladePooling,
    activation: SpladeActivation,
    device: torch.device,
    dtype: torch.dtype,
) -> SpladeModel:
    """Return one side in memory; CheckpointError where a file is torn or incomplete."""
    tokenizer = load_tokenizer(source.tokenizer_folder)
    if tokenizer.pad_token_id is None:
        raise CheckpointError(
            f"{source.tokenizer_folder} is expected to hold a tokenizer with a padding token, and "
            "its has none. Set pad_token in its tokenizer_config.json."
        )
    body = decoder = table = None
    size, longest = tokenizer.backend_tokenizer.get_vocab_size(), 2**31
    if source.folder is None:
        table = _table(source, tokenizer, size).to(device)
    else:
        model = load_masked_language_model(source.folder, dtype).to(device)
        body, decoder = _taken_apart(source.folder, model)
        size = int(model.config.vocab_size)
        reserved = model.config.pad_token_id + 1 if "roberta" in model.config.model_type else 0
        longest = int(model.config.max_position_embeddings) - reserved
    return SpladeModel(
        body=body,
        decoder=decoder,
        table=table,
        pooling=pooling,
        activation=activation,
        tokenizer=tokenizer,
        frame=find_frame(tokenizer),
        max_length=longest,
        unknown_id=getattr(tokenizer, "unk_token_id", None),
        blank_ids=(),
        pad_id=tokenizer.pad_token_id,
        vocabulary_size=size,
    )


def term_weights(model: SpladeModel, batch: Padded) -> Tensor:
    """Return (b, v) float32 the term weights of b pieces, each ≥ 0."""
    assert model.body is not None
    assert model.decoder is not None
    states = last_states(model.body, batch)
    return torch.stack(
        [_pooled(model, row[kept]) for row, kept in zip(states, batch.mask, strict=True)]
    )


def last_states(body: nn.Module, batch: Padded) -> Tensor:
    """Return (b, l, h) the states that the decoder reads."""
    mask = None if bool(batch.mask.all()) else batch.mask.long()
    states: Tensor = body(input_ids=batch.ids, attention_mask=mask).logits
    return states


def _pooled(model: SpladeModel, states: Tensor) -> Tensor:
    """Return (v,) of one piece's states (t, h), so many logits at once."""
    assert model.decoder is not None
    pooled: Tensor | None = None
    for logits in logits_in_parts(model.decoder, states):
        if model.pooling == "max":  # the activation never falls: its maximum is the logits'
            largest = logits.amax(dim=0)
            pooled = largest if pooled is None else torch.maximum(pooled, largest)
        else:
            total = activated(logits, model.activation).sum(dim=0)
            pooled = total if pooled is None else pooled + total
    assert pooled is not None  # a piece has its frame at least
    return activated(pooled, model.activation) if model.pooling == "max" else pooled


def logits_in_parts(decoder: nn.Linear, states: Tensor) -> Iterator[Tensor]:
    """Yield the float32 logits (t, v) of a piece's states (t, h), some tokens at a time."""
    step = max(1, _LOGITS_AT_ONCE // decoder.out_features)
    for part in torch.split(states, step):
        yield decoder(part).float()


def activated(logits: Tensor, activation: SpladeActivation) -> Tensor:
    """Return log(1 + relu(x)) of every logit, or its logarithm once more."""
    weights = torch.log1p(functional.relu(logits))
    return torch.log1p(weights) if activation == "log1p_relu" else weights


def _taken_apart(folder: Path, model: Any) -> tuple[nn.Module, nn.Linear]:
    """Return the model without its last layer, and that layer."""
    decoder = model.get_output_embeddings()
    name = next((name for name, one in model.named_modules() if one is decoder), None)
    if not isinstance(decoder, nn.Linear) or name is None:
        raise CheckpointError(
            f"{folder} is a {type(model).__name__}, of which the layer that makes the logits was "
            "not found. Use a masked-language model such as BERT, DistilBERT or XLM-RoBERTa."
        )
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, nn.Identity())
    return model, decoder


def _table(source: SpladeSource, tokenizer: Any, size: int) -> Tensor:
    """Return (v,) the weight of each token of a text that no model reads."""
    if source.table == "ones":
        return torch.ones(size)
    assert isinstance(source.table, Path)
    if source.table.suffix == ".safetensors":
        state = map_tensors(source.table)
        table = state.get("weight")
        if table is None or table.ndim != 1 or len(table) < size:
            raise CheckpointError(
                f"{source.table} expects a tensor 'weight' of at least {size} numbers, got "
                f"{sorted(state)}. Save the model again."
            )
        weights = table.float().clone()
    else:
        weights = _from_json(source.table, tokenizer, size)
    if not torch.isfinite(weights).all() or (weights < 0).any():
        raise CheckpointError(
            f"{source.table} expects finite weights ≥ 0, got others among them. Save it again."
        )
    return weights


def _from_json(path: Path, tokenizer: Any, size: int) -> Tensor:
    given = read_json(path)
    numbers: Sequence[object] = list(given.values())
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise CheckpointError(f"{path} expects a number for each token. Save it again.")
    vocabulary = tokenizer.backend_tokenizer.get_vocab()
    weights = torch.zeros(size)
    for token, weight in given.items():
        if token in vocabulary:
            weights[vocabulary[token]] = float(weight)
    return weights
