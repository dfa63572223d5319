"""Which encoder a caller means: one that is made already, or the name of a model."""

from __future__ import annotations

from pathlib import Path

from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError


def as_encoder(encoder: M3Encoder | str | Path) -> M3Encoder:
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
