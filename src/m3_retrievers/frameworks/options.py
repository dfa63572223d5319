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
    check_others(options, method, also=HybridOptions.__annotations__)
    bm25, tokenizer = options.get("bm25"), options.get("tokenizer")
    if tokenizer is not None:
        bm25 = as_bm25(bm25, tokenizer)
    rest = {name: given for name, given in options.items() if name not in ("bm25", "tokenizer")}
    return HybridRetriever(as_model(encoder), index, bm25=bm25, **rest)
