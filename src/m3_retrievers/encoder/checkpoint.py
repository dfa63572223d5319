"""A model in memory: backbone, heads and tokenizer, checked while they are loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from m3_retrievers.encoder.adapter import merge
from m3_retrievers.encoder.heads import Heads, load_heads
from m3_retrievers.encoder.pieces import Frame, find_frame
from m3_retrievers.encoder.source import Pooling, Source, tokenizer_file, weight_files
from m3_retrievers.errors import CheckpointError


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A loaded model: backbone and heads on their device, tokenizer, and its constants.

    max_length: tokens a sequence may have, frame included. dropped_ids: vocabulary ids that
    never carry a term weight (CLS, EOS/SEP, padding, unknown).
    """

    backbone: nn.Module
    heads: Heads
    tokenizer: Any
    frame: Frame
    pooling: Pooling
    max_length: int
    dropped_ids: tuple[int, ...]
    pad_id: int
    vocabulary_size: int


def load(source: Source, *, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """Return the model in memory. Raises CheckpointError where a file is torn or incomplete."""
    backbone = _backbone(source.folder, dtype if source.adapter is None else torch.float32)
    if source.adapter is not None:
        merge(source.adapter, backbone)
        backbone.to(dtype)
    config = backbone.config
    heads = load_heads(source.heads_folder, source.heads, hidden_size=config.hidden_size)
    tokenizer = _tokenizer(source.folder)
    special = ("cls_token_id", "eos_token_id", "sep_token_id", "pad_token_id", "unk_token_id")
    ids = {getattr(tokenizer, name, None) for name in special}
    limit = _positions(config)
    return Checkpoint(
        backbone=backbone.to(device),
        heads=heads.to(device),
        tokenizer=tokenizer,
        frame=find_frame(tokenizer),
        pooling=source.pooling,
        max_length=min(limit, source.max_length or limit),
        dropped_ids=tuple(sorted(one for one in ids if one is not None)),
        pad_id=tokenizer.pad_token_id,
        vocabulary_size=config.vocab_size,
    )


def _backbone(folder: Path, dtype: torch.dtype) -> Any:
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            _check_safetensors(path)
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            model, report = AutoModel.from_pretrained(
                folder, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be loaded as a backbone: {error}") from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the backbone's tensors ({', '.join(missing[:3])}…): "
            "they would be random. Use a complete checkpoint of this architecture."
        )
    return model.eval()


def _tokenizer(folder: Path) -> Any:
    tokenizer_file(folder)  # raises where there is none
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder} holds no tokenizer that can be read ({error}). Add its tokenizer.json."
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"{folder} is expected to hold a tokenizer.json (a fast tokenizer), and does "
            "not. Save one there with AutoTokenizer.from_pretrained(…).save_pretrained(…)."
        )
    # a tokenizer.json may ask for padding or a cut of its own; lengths are decided in pieces.py
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def _check_safetensors(path: Path) -> None:
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is torn or no safetensors file ({error}). Copy or download it again."
        ) from error


def _positions(config: Any) -> int:
    """Return how many tokens fit; RoBERTa's family counts positions from padding + 1."""
    reserved = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    return int(config.max_position_embeddings) - reserved


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hold transformers' own bar and load report back; what matters is checked and raised."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
