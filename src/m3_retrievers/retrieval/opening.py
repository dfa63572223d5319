"""A hybrid retriever over an index that outlives the process, and the plan kept beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.index.base import Index, PersistentIndex
from m3_retrievers.index.durable.index import DurableIndex
from m3_retrievers.index.durable.opening import is_made
from m3_retrievers.index.opening import open as open_home
from m3_retrievers.index.opening import parse_address
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.retrieval.planning import (
    bm25_for,
    check_index,
    plan_for,
    plan_from_state,
    plan_state,
)
from m3_retrievers.retrieval.saving import model_record, weighting_maker
from m3_retrievers.types.plan import (
    DEFAULT_LEGS,
    Fusion,
    HybridWeights,
    Mode,
    Plan,
    Recall,
    encoded_modes,
)


def open_index(
    where: str | Path | Index,
    encoder: Encoder,
    *,
    legs: Sequence[Mode] | None,
    recall: Recall | None,
    fusion: Fusion | None,
    weights: HybridWeights | None,
    bm25: BM25 | None,
) -> tuple[Index, Plan]:
    """Return an index, made where there is none, and the plan that is kept beside it now.

    where: an index's address (see ``index.opening.open``), or an index that persists by itself.
    The options that are None come from the plan kept there. See ``HybridRetriever.open`` for
    what fails.
    """
    new: dict[str, Any] = {"recall": recall, "fusion": fusion, "weights": weights}
    if isinstance(where, str | Path):
        home = parse_address(where)
        if home.engine == "sqlite":
            where = home.target
        else:
            plan = plan_for(encoder, legs=DEFAULT_LEGS if legs is None else legs, **new)
            where, bm25 = engine_index(str(where), plan, bm25), None
    if isinstance(where, str | Path) and not is_made(where):
        plan = plan_for(encoder, legs=DEFAULT_LEGS if legs is None else legs, **new)
        state = plan_state(plan)
        index: Index = DurableIndex(
            where,
            modes=encoded_modes(plan.modes),
            weighting=bm25_for(plan, bm25),
            restore=weighting_maker(encoder),
        )
    else:
        index = _there(where, encoder, bm25)
        kept = plan_from_state(_persistent(index).bind(model_record(encoder)), index.modes, encoder)
        kept_parts = {name: getattr(kept, name) for name in new}
        asked = {name: value for name, value in new.items() if value is not None}
        plan = plan_for(
            encoder, legs=kept.legs if legs is None else legs, **{**kept_parts, **asked}
        )
        check_index(index, plan)
        state = plan_state(plan)
    _persistent(index).bind(model_record(encoder), extra=state)
    return index, plan


def engine_index(address: str, plan: Plan, bm25: BM25 | None = None) -> Index:
    """Return the index that an engine has at an address; a new one keeps what a plan needs.

    Raises InputError for a BM25 beside an index that is there.
    """
    path = parse_address(address).path
    if path is None or path.exists():
        there = open_home(address)
        if _persistent(there).note():
            if bm25 is not None:
                raise InputError(
                    "bm25 belongs to a new index, got it for one that is there. Leave it out: "
                    "the index keeps its own."
                )
            return there
        _persistent(there).close()
    return open_home(address, modes=encoded_modes(plan.modes), weighting=bm25_for(plan, bm25))


def bind_index(index: Index, encoder: Encoder) -> None:
    """Bind an index that outlives the process to a model; IndexModelError if it has another."""
    if isinstance(index, PersistentIndex):
        index.bind(model_record(encoder))


def _there(where: str | Path | Index, encoder: Encoder, bm25: BM25 | None) -> Index:
    if isinstance(where, str | Path):
        return DurableIndex(where, weighting=bm25, restore=weighting_maker(encoder))
    if bm25 is not None:
        raise InputError(
            "bm25 belongs to a new index, got it beside an index. Make the index with it: "
            "DurableIndex(path, weighting=bm25)."
        )
    return where


def _persistent(index: Index) -> PersistentIndex:
    if not isinstance(index, PersistentIndex):
        raise InputError(
            f"open expects a path or an index that outlives the process, got {index!r:.80}. Use "
            "HybridRetriever(encoder, index) for one in memory."
        )
    return index
