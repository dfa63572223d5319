"""How a hybrid retrieval is set up: which legs, how deep, joined how, and as JSON."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError, LexicalFallbackWarning
from m3_retrievers.scoring.fusion import fusion_from_state
from m3_retrievers.types.plan import LEGS, Fusion, HybridWeights, Mode, Recall
from m3_retrievers.types.representations import Output


@dataclass(frozen=True, slots=True)
class RetrievalSettings:
    """What a saved retriever is set up with again; weights None is the model's own."""

    legs: tuple[Mode, ...]
    recall: Recall
    fusion: Fusion | None
    weights: HybridWeights | None

    def state(self) -> dict[str, Any]:
        """Return a JSON record; InputError for a fusion that cannot be written down."""
        fusion_state = getattr(self.fusion, "state", None)
        if self.fusion is not None and fusion_state is None:
            raise InputError(
                f"save expects a fusion that can be written down, got {self.fusion!r}. Use "
                "ReciprocalRankFusion or WeightedSum, or set it again after loading."
            )
        return {
            "legs": list(self.legs),
            "recall": asdict(self.recall),
            "weights": self.weights and asdict(self.weights),
            "fusion": fusion_state() if fusion_state else None,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], modes: frozenset[Mode]) -> RetrievalSettings:
        """Return the settings from what ``state`` wrote, or, of an index saved by itself, {}.

        modes: those of the index, whose legs count where none were written.
        """
        fusion, weights = state.get("fusion"), state.get("weights")
        return cls(
            legs=tuple(state.get("legs", [leg for leg in LEGS if leg in modes])),
            recall=Recall(**state.get("recall", {})),
            fusion=fusion_from_state(fusion) if fusion else None,
            weights=HybridWeights(**weights) if weights else None,
        )


def check_parts(encoder: object, *, recall: object, fusion: object, weights: object) -> None:
    """Raise InputError for a part of the wrong kind, such as a model's name for an encoder."""
    # what encodes is enough: somebody's own encoder need not inherit from ours
    if not hasattr(encoder, "encode_documents"):
        raise InputError(
            f"encoder expects an M3Encoder, got {encoder!r:.80}. Make one with "
            "M3Encoder.from_pretrained('m3-mini')."
        )
    if recall is not None and not isinstance(recall, Recall):
        raise InputError(f"recall expects a Recall such as Recall(dense=50), got {recall!r:.80}.")
    if weights is not None and not isinstance(weights, HybridWeights):
        raise InputError(
            "weights expects HybridWeights such as HybridWeights(dense=1, sparse=0.3, colbert=1), "
            f"got {weights!r:.80}."
        )
    if fusion is not None and not callable(fusion):
        raise InputError(
            f"fusion expects ReciprocalRankFusion() or WeightedSum(), got {fusion!r:.80}."
        )


def usable_legs(legs: Sequence[Mode], encoder: M3Encoder) -> tuple[Mode, ...]:
    """Return the legs, BM25 in place of a sparse head that the model lacks, with a warning.

    Raises InputError for legs that do not exist, repeat, or are none at all.
    """
    if isinstance(legs, str) or not legs or len(set(legs)) != len(legs):
        raise InputError(f"legs expects a list of different names of {LEGS}, got {legs!r}.")
    for leg in legs:
        if leg not in LEGS:
            raise InputError(f"legs expects some of {LEGS}, got {leg!r}.")
    if "sparse" not in legs or "sparse" in encoder.outputs:
        return tuple(legs)
    kept = tuple(dict.fromkeys("bm25" if leg == "sparse" else leg for leg in legs))
    warnings.warn(
        f"{encoder.name!r} has no sparse head: BM25 serves as the lexical leg. "
        f"Pass legs={kept} to choose this yourself.",
        LexicalFallbackWarning,
        stacklevel=3,
    )
    return kept


def scored_modes(
    legs: Sequence[Mode], weights: HybridWeights, encoder: M3Encoder
) -> tuple[Mode, ...]:
    """Return the modes of the hybrid score: the legs, and what the weights ask of the model."""
    dense: tuple[Mode, ...] = ("dense",)
    colbert: tuple[Mode, ...] = ("colbert",)
    wants_dense = "dense" in legs or weights.dense > 0
    wants_colbert = weights.colbert > 0 and "colbert" in encoder.outputs
    lexical = tuple(leg for leg in legs if leg != "dense")
    return (*(dense if wants_dense else ()), *lexical, *(colbert if wants_colbert else ()))


def encoded_modes(modes: Iterable[Mode]) -> tuple[Output, ...]:
    """Return the modes that an encoder makes; BM25 reads the texts themselves.

    >>> encoded_modes(["dense", "bm25"])
    ('dense',)
    """
    return tuple(mode for mode in modes if mode != "bm25")
