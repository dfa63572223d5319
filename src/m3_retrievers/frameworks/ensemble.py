"""What an M3EnsembleRetriever is in either framework: one index, or several retrievers fused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from m3_retrievers.errors import InputError
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.scoring.fusion import ReciprocalRankFusion, check_fusion
from m3_retrievers.types.plan import Fusion

Retriever = TypeVar("Retriever")

# How many of the best candidates a reranker reads, unless k is more.
RERANK_DEPTH = 50


def check_hybrid(given: object, *, made_by: str) -> HybridRetriever:
    """Return a HybridRetriever as it is; raises InputError for anything else.

    made_by: the framework's method that makes one from documents.
    """
    if not isinstance(given, HybridRetriever):
        raise InputError(
            f"hybrid expects a HybridRetriever, got {given!r:.80}. Make one with {made_by}, or "
            "take a store's .hybrid; an encoder goes into HybridRetriever(encoder), other "
            "retrievers into retrievers=[…]."
        )
    return given


def check_sources(
    hybrid: object | None,
    retrievers: Sequence[object] | None,
    *,
    made_by: str,
    retrievers_only: Mapping[str, object],
) -> None:
    """Raise InputError unless one source of answers is given, and only options that go with it.

    made_by: as for ``check_hybrid``. retrievers_only: options by name, None where not given.
    """
    if (hybrid is None) == (not retrievers):
        got = "neither" if hybrid is None else "both"
        raise InputError(
            f"M3EnsembleRetriever expects hybrid= or a list retrievers=, got {got}. "
            f"{made_by} makes the first."
        )
    misplaced = [name for name, given in retrievers_only.items() if given is not None]
    if hybrid is not None and misplaced:
        raise InputError(
            f"{misplaced} belong to retrievers=, got with hybrid=, which orders its hits itself. "
            "Give fusion and weights to the HybridRetriever."
        )


def chosen_fusion(fusion: Fusion | None, weights: Sequence[float] | None, *, count: int) -> Fusion:
    """Return how retrievers are fused: RRF unless another is given.

    RRF reads ranks alone; the scores of different retrievers have no scale in common.
    weights: of RRF, a number a retriever, in their order.

    Raises InputError for weights beside a fusion, or not one a retriever.

    >>> chosen_fusion(None, [0.3, 0.7], count=2).weights
    {'retriever_1': 0.3, 'retriever_2': 0.7}
    """
    if weights is None:
        return ReciprocalRankFusion() if fusion is None else check_fusion(fusion)
    if fusion is not None:
        raise InputError(
            f"weights expects no fusion beside it, got {fusion!r:.80}. Give the weights to the "
            "fusion: ReciprocalRankFusion(weights={'retriever_1': …})."
        )
    if isinstance(weights, str | Mapping) or not isinstance(weights, Iterable):
        raise InputError(
            f"weights expects a list with one number a retriever, got {weights!r:.80}. "
            "HybridWeights weigh the modes of one index: give them to its HybridRetriever."
        )
    given = list(weights)
    if len(given) != count:
        raise InputError(
            f"weights expects one number a retriever, got {len(given)} for {count} retrievers."
        )
    return ReciprocalRankFusion(weights=by_name(given))


def by_name(retrievers: Iterable[Retriever]) -> dict[str, Retriever]:
    """Return retrievers under the names that traces and a fusion's weights use.

    >>> by_name(["chroma", "bm25"])
    {'retriever_1': 'chroma', 'retriever_2': 'bm25'}
    """
    return {f"retriever_{number}": one for number, one in enumerate(retrievers, start=1)}


def check_filtered(retrievers: Mapping[str, Any], knowing: Mapping[str, Any], option: str) -> None:
    """Raise InputError for a filter that some retrievers do not know.

    Applied to their answers it would silently leave fewer than k; before their top k only they
    can apply it, in their own language. option: what the framework calls it.
    """
    others = [
        f"{name} ({type(one).__name__})" for name, one in retrievers.items() if name not in knowing
    ]
    if others:
        raise InputError(
            f"{option} expects retrievers of this package, got {', '.join(others)}, which would "
            "take their best before it applies. Give each of them a filter of its own where it "
            "is made."
        )


def check_retrievers(given: Any, kind: type) -> list[Any]:
    """Return a list of retrievers as it is; raises InputError for what is of another kind."""
    if not isinstance(given, list | tuple):
        remedy = "Pass list(….values())." if isinstance(given, Mapping) else "Wrap it."
        raise InputError(f"retrievers expects a list of retrievers, got {given!r:.80}. {remedy}")
    for position, one in enumerate(given):
        if not isinstance(one, kind):
            raise InputError(
                f"retrievers expects retrievers, got {type(one).__name__} ({one!r:.60}) at "
                f"position {position}. Of a store or an index take .as_retriever()."
            )
    return list(given)


def check_reranker(given: Any, kind: type, *, example: str) -> Any:
    """Return a reranker or None as it is; raises InputError for anything else."""
    if given is not None and not isinstance(given, kind):
        raise InputError(
            f"reranker expects a {kind.__name__} such as {example}('m3-mini'), got {given!r:.80}."
        )
    return given


def check_savable(hybrid: HybridRetriever | None) -> HybridRetriever:
    """Return the HybridRetriever of an ensemble; raises InputError where it has none."""
    if hybrid is None:
        raise InputError(
            "save expects an M3EnsembleRetriever over one index, got one of retrievers=, which "
            "keep their documents themselves. Save each of them."
        )
    return hybrid
