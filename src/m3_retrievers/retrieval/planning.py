"""From what a caller asks for and what a model can do to a Plan, and a Plan as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import IndexCorruptError, InputError, LexicalFallbackWarning, warn
from m3_retrievers.index.base import Index
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.lexical.bm25 import BM25, as_bm25
from m3_retrievers.scoring.fusion import check_fusion, fusion_from_state
from m3_retrievers.types.plan import (
    LEGS,
    Fusion,
    HybridWeights,
    Mode,
    Plan,
    Recall,
    check_weights,
    encoded_modes,
)


def plan_for(
    encoder: Encoder,
    *,
    legs: Sequence[Mode],
    recall: Recall | None = None,
    fusion: Fusion | None = None,
    weights: HybridWeights | Mapping[str, float] | None = None,
) -> Plan:
    """Return the plan of searches with a model; None stands for its own weights, 100 a leg.

    A model without a sparse head gets ``"bm25"`` for ``"sparse"``, with a
    LexicalFallbackWarning. Raises InputError for parts that are not what they should be.
    """
    if recall is not None and not isinstance(recall, Recall):
        raise InputError(f"recall expects a Recall such as Recall(dense=50), got {recall!r:.80}.")
    if fusion is not None:
        check_fusion(fusion)
    return Plan(
        legs=_usable_legs(legs, encoder),
        recall=recall or Recall(),
        weights=check_weights(weights, default=encoder.default_weights),
        fusion=fusion,
        outputs=encoder.outputs,
    )


def _usable_legs(legs: Sequence[Mode], encoder: Encoder) -> tuple[Mode, ...]:
    """Return the legs, BM25 in place of a sparse head that the model lacks, with a warning."""
    if isinstance(legs, str) or not isinstance(legs, Sequence) or not legs:
        raise InputError(f"legs expects a list of different names of {LEGS}, got {legs!r:.80}.")
    for leg in legs:
        if leg not in LEGS:
            raise InputError(f"legs expects some of {LEGS}, got {leg!r:.80}.")
    if len(set(legs)) != len(legs):
        raise InputError(f"legs expects each name once, of {LEGS}, got {legs!r:.80}.")
    kept = tuple(dict.fromkeys(_instead(leg, encoder) for leg in legs))
    usable = tuple(leg for leg in kept if leg is not None) or (_lexical(encoder),)
    if usable != tuple(legs):
        warn(
            f"{_lacking(legs, encoder)} Pass legs={usable} to choose this yourself.",
            LexicalFallbackWarning,
        )
    return usable


def _lacking(legs: Sequence[Mode], encoder: Encoder) -> str:
    """Return in words which legs a model cannot serve, and what serves instead."""
    said = []
    if "dense" in legs and "dense" not in encoder.outputs:
        said.append(f"{encoder.name!r} makes no dense vectors: the lexical leg recalls alone.")
    if "sparse" in legs and "sparse" not in encoder.outputs:
        said.append(f"{encoder.name!r} has no sparse head: BM25 serves as the lexical leg.")
    return " ".join(said)


def _instead(leg: Mode, encoder: Encoder) -> Mode | None:
    """Return a leg that the model serves: BM25 for term weights it lacks, none for dense."""
    if leg == "bm25" or leg in encoder.outputs:
        return leg
    return "bm25" if leg == "sparse" else None


def _lexical(encoder: Encoder) -> Mode:
    return "sparse" if "sparse" in encoder.outputs else "bm25"


def index_for(plan: Plan, bm25: BM25 | None) -> LocalIndex:
    """Return a new index with what a plan needs; bm25: None is ``BM25()``, where it is a leg."""
    return LocalIndex(modes=encoded_modes(plan.modes), weighting=bm25_for(plan, bm25))


def bm25_for(plan: Plan, bm25: BM25 | None) -> BM25 | None:
    """Return the BM25 of a new index: None is ``BM25()`` where it is a leg."""
    if bm25 is not None and "bm25" not in plan.legs:
        raise InputError(
            f"bm25 expects 'bm25' among the legs, got {plan.legs}. Pass legs=('dense', 'bm25')."
        )
    return as_bm25(bm25) if "bm25" in plan.legs else None


def check_index(index: Index, plan: Plan, *, bm25: BM25 | None = None) -> None:
    """Raise InputError unless an index is one and scores the legs of a plan."""
    if not hasattr(index, "modes"):
        raise InputError(
            f"index expects an Index such as LocalIndex, got {index!r:.80}. Of a HybridRetriever "
            "take .index, of a store .hybrid.index; leave it out for a new one, and add() texts."
        )
    if bm25 is not None:
        raise InputError(
            "bm25 belongs to a new index, got it beside index=. Make the index with it: "
            "LocalIndex(weighting=bm25)."
        )
    absent = [leg for leg in plan.legs if leg not in index.modes]
    if absent:
        raise InputError(
            f"legs {plan.legs} expect an index that scores {absent}, got one with "
            f"{sorted(index.modes)}. Build it with these modes, or name other legs."
        )


def plan_options(plan: Plan) -> dict[str, Any]:
    """Return a plan as the options that make a HybridRetriever with it."""
    return {
        "legs": plan.legs,
        "recall": plan.recall,
        "fusion": plan.fusion,
        "weights": plan.weights,
    }


def plan_state(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON; InputError for a fusion that cannot be written down."""
    fusion_state = getattr(plan.fusion, "state", None)
    if plan.fusion is not None and fusion_state is None:
        raise InputError(
            f"save expects a fusion that can be written down, got {plan.fusion!r}. Use "
            "ReciprocalRankFusion or WeightedSum, or set it again after loading."
        )
    return {
        "legs": list(plan.legs),
        "recall": asdict(plan.recall),
        "weights": asdict(plan.weights),
        "fusion": fusion_state() if fusion_state else None,
    }


def plan_from_state(state: Mapping[str, Any], modes: frozenset[Mode], encoder: Encoder) -> Plan:
    """Return the plan that ``plan_state`` wrote, or, of an index saved by itself, {}.

    modes: those of the index, whose legs count where none were written. Raises
    IndexCorruptError for what is no plan.
    """
    try:
        fusion, weights = state.get("fusion"), state.get("weights")
        return plan_for(
            encoder,
            legs=tuple(state.get("legs", [leg for leg in LEGS if leg in modes])),
            recall=Recall(**state.get("recall", {})),
            fusion=fusion_from_state(fusion) if fusion else None,
            weights=HybridWeights(**weights) if weights else None,
        )
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise IndexCorruptError(
            f"The plan kept beside the index is none ({error}). Restore the index from a backup, "
            "or index the documents again."
        ) from error
