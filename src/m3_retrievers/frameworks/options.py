"""Options by name, the same in both frameworks: what they are, and what an unknown one meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import InputError
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


# What people type from habit, and what it is called here, where that is an option.
_HABITS = {
    "top_k": ("k", "top_n"),
    "top_n": ("k",),
    "n_results": ("k", "top_n"),
    "similarity_top_k": ("k", "top_n"),
    "k": ("top_n",),
    "filter": ("filters",),
    "filters": ("filter",),
    "embedding": ("encoder",),
    "embeddings": ("encoder",),
    "embed_model": ("encoder",),
    "embedding_function": ("encoder",),
    "model": ("encoder",),
    "model_name": ("encoder",),
    "embeddings_model": ("encoder",),
    "search_kwargs": ("k",),
    "c": ("fusion",),
    "node_postprocessors": ("reranker",),
    "base_compressor": ("reranker",),
    "bm25_params": ("bm25",),
    "preprocess_func": ("tokenizer",),
}


def check_options(given: Iterable[str], *, known: Iterable[str], owner: str) -> None:
    """Raise InputError for an option that is not known: ignored, it would mislead.

    >>> check_options(["top_k"], known=["encoder", "k"], owner="M3EnsembleRetriever")
    Traceback (most recent call last):
    m3_retrievers.errors.InputError: M3EnsembleRetriever got the option 'top_k', which it does \
not know. Did you mean k=? It takes encoder, k.
    """
    names = sorted(known)
    for option in given:
        if option not in names:
            near = [name for name in _HABITS.get(option, ()) if name in names]
            near = near or get_close_matches(option, names, n=1)
            meant = f" Did you mean {near[0]}=?" if near else ""
            raise InputError(
                f"{owner} got the option {option!r}, which it does not know.{meant} "
                f"It takes {', '.join(names)}."
            )


def check_others(
    others: Iterable[str], method: Callable[..., object], *, also: Iterable[str] = ()
) -> None:
    """Refuse what a method's ``**options`` let through; see ``check_options``."""
    named = [
        parameter.name
        for parameter in signature(method).parameters.values()
        if parameter.kind is not Parameter.VAR_KEYWORD
    ]
    check_options(others, known=(*named, *also), owner=method.__qualname__)


def hybrid_retriever(
    encoder: Encoder | str | Path,
    index: Index | None = None,
    *,
    options: Mapping[str, Any],
    method: Callable[..., object],
) -> HybridRetriever:
    """Return a HybridRetriever with these ``HybridOptions``, over a new index unless one is given.

    encoder: also a model's name. method: whose ``**options`` they were, for the error. Raises
    InputError for an option that is not known or belongs elsewhere.
    """
    check_others(options, method, also=HybridOptions.__annotations__)
    bm25, tokenizer = options.get("bm25"), options.get("tokenizer")
    if tokenizer is not None:
        bm25 = as_bm25(bm25, tokenizer)
    rest = {name: given for name, given in options.items() if name not in ("bm25", "tokenizer")}
    return HybridRetriever(encoder, index, bm25=bm25, **rest)
