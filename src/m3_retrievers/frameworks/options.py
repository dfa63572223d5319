"""Options by name, the same in both frameworks: what makes a HybridRetriever of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.frameworks.inputs import as_model
from m3_retrievers.habits import check_others
from m3_retrievers.index.base import Index
from m3_retrievers.lexical.bm25 import BM25, as_bm25
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.plan import Fusion, HybridWeights, Mode, Recall

Tokenizer: TypeAlias = Callable[[str], list[str]] | str


class HybridOptions(TypedDict, total=False):
    """What makes a HybridRetriever besides its encoder, wherever documents go in.

    legs, recall, fusion, weights: as for ``HybridRetriever``. bm25: the ``BM25`` of a BM25 leg;
    tokenizer: the same for ``BM25(tokenizer=…)``, such as ``"german"`` for its stems.
    """

    legs: Sequence[Mode]
    recall: Recall | None
    fusion: Fusion | None
    weights: HybridWeights | None
    bm25: BM25 | None
    tokenizer: Tokenizer | None


def hybrid_retriever(
    encoder: Encoder | str | Path,
    index: Index | None = None,
    *,
    options: Mapping[str, Any],
    method: Callable[..., object],
) -> HybridRetriever:
    """Return a HybridRetriever with these ``HybridOptions``, over a new index unless one is given.

    encoder: also a model's name, or embeddings of one. method: whose ``**options`` they were,
    for the error. Raises InputError for an option that is not known or belongs elsewhere.
    """
    return HybridRetriever(as_model(encoder), index, **_core_options(options, method))


def opened_retriever(
    path: str | Path | Index,
    encoder: Encoder | str | Path,
    *,
    options: Mapping[str, Any],
    method: Callable[..., object],
) -> HybridRetriever:
    """Return ``HybridRetriever.open`` with these ``HybridOptions``; fails as that does.

    method: whose ``**options`` they were, for the error about one that is not known.
    """
    return HybridRetriever.open(path, as_model(encoder), **_core_options(options, method))


def _core_options(options: Mapping[str, Any], method: Callable[..., object]) -> dict[str, Any]:
    """Return ``HybridOptions`` as HybridRetriever takes them, a tokenizer as its BM25."""
    check_others(options, method, also=HybridOptions.__annotations__)
    core = {name: given for name, given in options.items() if name != "tokenizer"}
    if options.get("tokenizer") is not None:
        core["bm25"] = as_bm25(core.get("bm25"), options["tokenizer"])
    return core
