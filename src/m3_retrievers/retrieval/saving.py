"""A hybrid retriever on disk: its index, the model it is bound to, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.index.base import Index, SavableIndex
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.retrieval.settings import RetrievalSettings


def save(folder: str | Path, index: Index, encoder: M3Encoder, settings: RetrievalSettings) -> None:
    """Write index and settings to a folder; InputError for an index that lives elsewhere."""
    if not isinstance(index, SavableIndex):
        raise InputError(
            f"save expects an index that lives in this process, got {type(index).__name__}, "
            "which keeps its documents itself. Nothing needs saving."
        )
    index.save(folder, model=_model(encoder), extra=settings.state())


def load(folder: str | Path, encoder: M3Encoder) -> tuple[LocalIndex, RetrievalSettings]:
    """Return what ``save`` wrote to a folder; see ``HybridRetriever.load`` for what fails."""

    def weighting(state: Mapping[str, Any]) -> BM25:
        # a subword BM25 counts the model's own tokens; others do without the model
        subword = encoder.tokenizer if state["tokenizer"]["kind"] == "subword" else None
        return BM25.from_state(state, subword=subword)

    index = LocalIndex.load(folder, model=_model(encoder), weighting=weighting)
    return index, RetrievalSettings.from_state(index.extra, index.modes)


def _model(encoder: M3Encoder) -> dict[str, str]:
    return {"name": encoder.name, "fingerprint": encoder.fingerprint}
