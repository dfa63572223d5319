"""A hybrid retriever on disk: its index, the model it is bound to, and its plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.index.base import Index, SavableIndex
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.index.snapshot.manifest import bound_record
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.retrieval.planning import plan_from_state, plan_state
from m3_retrievers.retrieval.precisions import precision_of
from m3_retrievers.types.plan import Plan


def save(folder: str | Path, index: Index, encoder: Encoder, plan: Plan) -> None:
    """Write index and plan to a folder; InputError for an index that lives elsewhere."""
    if not isinstance(index, SavableIndex):
        raise InputError(
            f"save expects an index that lives in this process, got {type(index).__name__}, "
            "which keeps its documents itself. Nothing needs saving."
        )
    saved = index.model if isinstance(index, LocalIndex) else {}
    model = bound_record(saved=saved, given=model_record(encoder))
    index.save(folder, model=model, extra=plan_state(plan))


def load(folder: str | Path, encoder: Encoder) -> tuple[LocalIndex, Plan]:
    """Return what ``save`` wrote to a folder; see ``HybridRetriever.load`` for what fails."""
    weighting = weighting_maker(encoder)
    index = LocalIndex.load(folder, model=model_record(encoder), weighting=weighting)
    return index, plan_from_state(index.extra, index.modes, encoder)


def weighting_maker(encoder: Encoder) -> Callable[[Mapping[str, Any]], BM25]:
    """Return what makes a BM25 again from its state."""

    def weighting(state: Mapping[str, Any]) -> BM25:
        # a subword BM25 counts the model's own tokens; others do without the model
        needs = state["tokenizer"]["kind"] == "subword"
        subword = getattr(encoder, "tokenizer", None) if needs else None
        return BM25.from_state(state, subword=subword)

    return weighting


def model_record(encoder: Encoder) -> dict[str, str]:
    """Return what an index notes of the model it is bound to."""
    record = {"name": encoder.name, "fingerprint": encoder.fingerprint}
    precision = precision_of(encoder)
    return record if precision is None else record | {"precision": precision}
