"""Which encoder a caller means: one that is made already, or the name of a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.encoder.settings import Settings
from m3_retrievers.errors import InputError


def as_encoder(encoder: Encoder | str | Path) -> Encoder:
    """Return the encoder itself, or the one that ``M3Encoder.from_pretrained`` makes of a name.

    Raises InputError for what is neither, CheckpointError for a name without a model.
    """
    if isinstance(encoder, str | Path):
        return M3Encoder.from_pretrained(encoder)
    # whatever encodes will do: an encoder of the caller's own need not inherit from ours
    if not hasattr(encoder, "encode_documents") or isinstance(encoder, type):
        raise InputError(
            f"encoder expects an M3Encoder or a model's name, got {encoder!r:.80}. Write "
            "'m3-mini', 'BAAI/bge-m3', a model folder, or M3Encoder.from_pretrained(…)."
        )
    return encoder


def as_splade(encoder: Encoder | str | Path) -> Encoder:
    """Return the encoder itself, or the one that ``SpladeEncoder.from_pretrained`` makes of a name.

    Raises as ``as_encoder`` does.
    """
    if isinstance(encoder, str | Path):
        # brings transformers, a second that M3Encoder does without
        from m3_retrievers.encoder.splade import SpladeEncoder

        return SpladeEncoder.from_pretrained(encoder)
    return as_encoder(encoder)


def settings_of(encoder: Encoder) -> dict[str, Any]:
    """Return how an encoder reads texts, as JSON; {} where it does not say."""
    settings = getattr(encoder, "settings", None)
    found = asdict(settings) if isinstance(settings, Settings) else {}
    numbers = {name: getattr(encoder, name, None) for name in ("precision", "dtype")}
    return found | {name: str(value) for name, value in numbers.items() if value is not None}
