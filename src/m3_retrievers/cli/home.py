"""A retriever over an index that keeps its changes itself, by its address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from m3_retrievers.cli.console import legs_for
from m3_retrievers.cli.destination import load, model_of
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.index.base import PersistentIndex
from m3_retrievers.index.opening import open as open_index
from m3_retrievers.index.opening import parse_address, shown_address
from m3_retrievers.retrieval.opening import engine_index
from m3_retrievers.retrieval.planning import bm25_for, plan_for
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.plan import Mode, encoded_modes


@contextmanager
def retriever_at(address: str, encoder: M3Encoder, *, create: bool) -> Iterator[HybridRetriever]:
    """Give the retriever over the index at an address, bound to the model; closed afterwards.

    create: whether one is made where there is none. Raises IndexModelError for an index of
    another model, and what ``index.open`` raises.
    """
    legs = legs_for(encoder) if create else None
    index = _opened(address, encoder, legs)
    try:
        yield HybridRetriever.open(index, encoder, legs=None if index.note() else legs)
    finally:
        index.close()


def retriever_in(index: str, encoder: M3Encoder) -> AbstractContextManager[HybridRetriever]:
    """Return a context with the retriever over an index in a folder, a file or an engine."""
    home = parse_address(index)
    if home.engine == "sqlite":
        return nullcontext(load(Path(home.target), encoder))
    return retriever_at(index, encoder, create=False)


def built_by(index: str) -> Mapping[str, Any]:
    """Return the record of the model that built an index, wherever it is; {} for none."""
    home = parse_address(index)
    return model_of(Path(home.target)) if home.engine == "sqlite" else model_at(index)


def model_at(address: str) -> dict[str, Any]:
    """Return the record of the model that built the index at an address; {} for none."""
    index = _persistent(open_index(address, create=False), address)
    try:
        model: dict[str, Any] = index.note().get("model", {})
        return model
    finally:
        index.close()


def _opened(address: str, encoder: M3Encoder, legs: Sequence[Mode] | None) -> Any:
    """Return the index at an address; a new one keeps what these legs need, None makes none."""
    home = parse_address(address)
    if legs is None or (home.path is not None and home.path.exists()):
        return _persistent(open_index(address, create=legs is not None), address)
    plan = plan_for(encoder, legs=legs)
    if home.engine != "sqlite":
        return engine_index(address, plan)
    return open_index(address, modes=encoded_modes(plan.modes), weighting=bm25_for(plan, None))


def _persistent(index: Any, address: str) -> Any:
    if not isinstance(index, PersistentIndex):
        raise InputError(
            f"expected the address of an index that keeps its changes itself, got "
            f"{shown_address(address)!r}, a folder that save wrote. Give it as --out."
        )
    return index
