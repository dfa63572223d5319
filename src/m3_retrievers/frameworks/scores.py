"""The scores that an answer carries in its metadata: in one entry, in flat entries, or not at all.

``"nested"``: ``metadata["scores"]`` holds them all, as in ``{"dense": 0.8, "hybrid": 1.3}``.
``"flat"``: an entry each, ``metadata["score_dense"]``, for stores that take plain values only.
``"off"``: the metadata stays as it was stored, so that two queries return equal answers: what
removes duplicates by comparing whole answers (LangChain's MultiQueryRetriever, LlamaIndex's
QueryFusionRetriever) needs that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from m3_retrievers.errors import InputError

ScoreStyle: TypeAlias = Literal["nested", "flat", "off"]

SCORES = "scores"
MODES = ("dense", "sparse", "bm25", "colbert", "hybrid", "fusion", "reranker")
_FLAT = {f"score_{mode}": mode for mode in MODES}

# Entries that retrievers, rerankers and stores add on the way out: LangChain's and LlamaIndex's
# rerankers, LangChain's Qdrant store (the last two but one) and its Milvus store.
_ADDED = {"relevance_score", "retrieval_score", "_id", "_collection_name", "pk"}


def check_style(style: object) -> ScoreStyle:
    """Return a style as it is; raises InputError for what is none."""
    if style not in get_args(ScoreStyle):
        raise InputError(f"scores expects 'nested', 'flat' or 'off', got {style!r:.60}.")
    return style  # type: ignore[return-value]


def read_scores(metadata: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores that metadata holds in either style.

    >>> read_scores({"scores": {"dense": 0.5}, "n": 1}), read_scores({"score_bm25": 2.0})
    ({'dense': 0.5}, {'bm25': 2.0})
    """
    flat = {mode: metadata[key] for key, mode in _FLAT.items() if key in metadata}
    return {**flat, **(metadata[SCORES] if _is_nested(metadata) else {})}


def write_scores(
    metadata: Mapping[str, Any], scores: Mapping[str, float], style: ScoreStyle
) -> dict[str, Any]:
    """Return metadata with these scores in place of those it held.

    >>> write_scores({"n": 1, "scores": {"dense": 0.5}}, {"hybrid": 0.7}, "flat")
    {'n': 1, 'score_hybrid': 0.7}
    >>> write_scores({"n": 1}, {"hybrid": 0.7}, "nested"), write_scores({"n": 1}, {}, "off")
    ({'n': 1, 'scores': {'hybrid': 0.7}}, {'n': 1})
    """
    kept = without_scores(metadata)
    if style == "nested":
        return {**kept, SCORES: dict(scores)}
    if style == "flat":
        return {**kept, **{f"score_{mode}": score for mode, score in scores.items()}}
    return kept


def without_scores(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata without scores of this package; a caller's own "scores" stay."""
    ours = {*_FLAT, SCORES} if _is_nested(metadata) else {*_FLAT}
    return {key: value for key, value in metadata.items() if key not in ours}


def score_keys(scores: Mapping[str, float], style: ScoreStyle) -> list[str]:
    """Return the metadata entries that ``write_scores`` makes.

    >>> score_keys({"dense": 1.0}, "flat"), score_keys({"dense": 1.0}, "nested")
    (['score_dense'], ['scores'])
    """
    return list(write_scores({}, scores, style))


def identity(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that belong to a document, without those added on its way out."""
    kept = without_scores(metadata)
    return {key: value for key, value in kept.items() if key not in _ADDED}


def order_score(metadata: Mapping[str, Any]) -> float | None:
    """Return the score an answer was ordered by, as far as its metadata says.

    >>> order_score({"scores": {"dense": 0.5, "hybrid": 0.7}}), order_score({"score_bm25": 2.0})
    (0.7, 2.0)
    >>> order_score({"n": 1}), order_score({"relevance_score": 0.9, "scores": {"hybrid": 0.7}})
    (None, 0.9)
    """
    scores = read_scores(metadata)
    if _is_number(metadata.get("relevance_score")):
        return float(metadata["relevance_score"])
    for last in ("reranker", "hybrid", "fusion"):
        if last in scores:
            return scores[last]
    return next(iter(scores.values())) if len(scores) == 1 else None


def _is_nested(metadata: Mapping[str, Any]) -> bool:
    held = metadata.get(SCORES)
    return isinstance(held, Mapping) and all(
        mode in MODES and _is_number(score) for mode, score in held.items()
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
