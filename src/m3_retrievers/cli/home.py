"""A retriever over an index that keeps its changes itself, by its address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from m3_retrievers.cli.console import legs_for
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.index.base import PersistentIndex
from m3_retrievers.index.opening import open as open_index
from m3_retrievers.index.opening import shown_address
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.retrieval.planning import plan_for, plan_from_state, plan_state
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.plan import encoded_modes


@contextmanager
def retriever_at(address: str, encoder: M3Encoder, *, create: bool) -> Iterator[HybridRetriever]:
    """Give the retriever over the index at an address, bound to the model; closed afterwards.

    create: whether one is made where there is none. Raises IndexModelError for an index of
    another model, and what ``index.open`` raises.
    """
    plan = plan_for(encoder, legs=legs_for(encoder))
    index = open_index(
        address,
        modes=encoded_modes(plan.modes) if create else None,
        weighting=BM25() if create and "bm25" in plan.legs else None,
        create=create,
    )
    if not isinstance(index, PersistentIndex):
        raise InputError(
            f"expected the address of an index that keeps its changes itself, got "
            f"{shown_address(address)!r}, a folder that save wrote. Give it as --out."
        )
    try:
        model = {"name": encoder.name, "fingerprint": encoder.fingerprint}
        state = index.bind(model)
        if state:
            plan = plan_from_state(state, index.modes, encoder)
        elif create:
            index.bind(model, extra=plan_state(plan))
        yield HybridRetriever(
            encoder,
            index=index,
            legs=plan.legs,
            recall=plan.recall,
            fusion=plan.fusion,
            weights=plan.weights,
        )
    finally:
        index.close()


def model_at(address: str) -> dict[str, Any]:
    """Return the record of the model that built the index at an address; {} for none."""
    index = open_index(address, create=False)
    if not isinstance(index, PersistentIndex):
        return {}
    try:
        model: dict[str, Any] = index.note().get("model", {})
        return model
    finally:
        index.close()
