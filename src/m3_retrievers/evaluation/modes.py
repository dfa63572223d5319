"""The modes an evaluation tells apart: single ones, and the sums of the paper's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, cast

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.types.plan import HybridWeights, Mode
from m3_retrievers.types.representations import ALL_OUTPUTS

EvaluationMode: TypeAlias = Literal[
    "dense", "sparse", "colbert", "bm25", "dense+sparse", "dense+bm25", "all"
]
# Each row of the paper's tables: the modes whose scores it adds.
COMPONENTS: Mapping[EvaluationMode, tuple[Mode, ...]] = {
    "dense": ("dense",),
    "sparse": ("sparse",),
    "colbert": ("colbert",),
    "bm25": ("bm25",),
    "dense+sparse": ("dense", "sparse"),
    "dense+bm25": ("dense", "bm25"),
    "all": cast(tuple[Mode, ...], ALL_OUTPUTS),
}
LABELS = {
    "dense": "Dense",
    "sparse": "Sparse",
    "colbert": "Multi-vector",
    "bm25": "BM25",
    "dense+sparse": "Dense + Sparse",
    "dense+bm25": "Dense + BM25",
    "all": "All",
}
_BM25_NOTE = "no sparse head: the lexical part of 'all' is BM25"


def chosen(
    modes: Sequence[str] | None, encoder: Encoder, weights: HybridWeights
) -> tuple[dict[str, tuple[Mode, ...]], tuple[str, ...]]:
    """Return the components of each mode to run, and what a reader must know about them.

    modes: None is all that the model can do and the weights let count. Raises InputError for
    an unknown mode, or one that was asked for and that the model or the weights rule out.
    """
    asked = list(COMPONENTS) if modes is None else list(modes)
    unknown = [name for name in asked if name not in COMPONENTS]
    if isinstance(modes, str) or unknown or not asked:
        raise InputError(f"modes expects a list of some of {list(COMPONENTS)}, got {modes!r}.")
    if not isinstance(weights, HybridWeights):
        raise InputError(f"weights expects HybridWeights(dense=…, sparse=…, …), got {weights!r}.")
    found: dict[str, tuple[Mode, ...]] = {}
    notes = []
    for name in cast(list[EvaluationMode], asked):
        components = _components(name, encoder)
        if not {*encoder.outputs, "bm25"}.issuperset(components):
            if modes is not None:
                raise InputError(
                    f"mode {name!r} expects {components}, got a model with {encoder.outputs}."
                )
            notes.append(f"left out: {name}")
        elif len(components) > 1 and not _weighed(components, weights):
            # a hybrid of modes that all weigh 0 is nothing to measure
            if modes is not None:
                raise InputError(f"{components} expect a weight above 0, got {weights}.")
            notes.append(f"left out: {name} (its weights are 0)")
        else:
            found[name] = components
            notes += [_BM25_NOTE] if components != COMPONENTS[name] else []
    return found, tuple(notes)


def _components(name: EvaluationMode, encoder: Encoder) -> tuple[Mode, ...]:
    """Return the modes a mode adds up; BM25 stands in for a sparse head that is not there."""
    if name == "all" and "sparse" not in encoder.outputs:
        return ("dense", "bm25", "colbert")
    return COMPONENTS[name]


def _weighed(components: tuple[Mode, ...], weights: HybridWeights) -> bool:
    return any(getattr(weights, weight_name(mode)) > 0 for mode in components)


def weight_name(mode: str) -> str:
    """Return the field of ``HybridWeights`` that weighs a mode: one for both lexical modes.

    >>> weight_name("bm25"), weight_name("dense")
    ('sparse', 'dense')
    """
    return "sparse" if mode == "bm25" else mode
