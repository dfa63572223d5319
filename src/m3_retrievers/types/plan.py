"""How a hybrid search goes: legs, depths, and what orders the result.

Modes are the ways to score: dense, sparse (learned term weights), BM25, ColBERT. A leg is a
mode that recalls candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias

from m3_retrievers.checks import check_k
from m3_retrievers.errors import InputError
from m3_retrievers.habits import guided
from m3_retrievers.types.hits import Ranking
from m3_retrievers.types.representations import ALL_OUTPUTS, Output

Mode: TypeAlias = Literal["dense", "sparse", "bm25", "colbert"]
Fusion: TypeAlias = Callable[[Mapping[str, Ranking]], Ranking]

MODES: tuple[Mode, ...] = ("dense", "sparse", "bm25", "colbert")
LEGS: tuple[Mode, ...] = ("dense", "sparse", "bm25")
DEFAULT_LEGS: tuple[Mode, ...] = ("dense", "sparse")


@guided()
@dataclass(frozen=True, slots=True)
class HybridWeights:
    """How much each mode counts in the hybrid score.

    The default is what the BGE-M3 paper (arXiv 2402.03216, section 4) uses for MIRACL and
    MKQA; ``sparse`` weighs the lexical leg, M3's or BM25's.

    Raises InputError for a weight that is negative or not finite, or if all are 0.

    >>> HybridWeights(dense=0.4, sparse=0.2, colbert=0.4).total
    1.0
    """

    dense: float = 1.0
    sparse: float = 0.3
    colbert: float = 1.0

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"weight {part.name} expects a number, got {value!r:.80}.")
            if not math.isfinite(value) or value < 0:
                raise InputError(f"weight {part.name} expects a finite number ≥ 0, got {value!r}.")
        if self.total <= 0:
            raise InputError(
                "HybridWeights expects at least one weight above 0, got 0 for all: nothing would "
                "be scored. Give one mode a weight."
            )

    @property
    def total(self) -> float:
        return self.dense + self.sparse + self.colbert

    @classmethod
    def long_documents(cls) -> HybridWeights:
        """Return the paper's weights for MLDR, where lexical evidence carries most."""
        return cls(dense=0.15, sparse=0.5, colbert=0.35)

    def of(self, mode: Mode) -> float:
        """Return the weight of a mode; ``sparse`` is that of every lexical mode."""
        return float(getattr(self, "sparse" if mode == "bm25" else mode))


def as_weights(given: HybridWeights | Mapping[str, float] | None) -> HybridWeights | None:
    """Return weights as they are, or those a mapping names; InputError for anything else.

    A list is refused: libraries differ in the order they mean.

    >>> as_weights({"dense": 1, "sparse": 0.5, "colbert": 0})
    HybridWeights(dense=1, sparse=0.5, colbert=0)
    """
    if given is None or isinstance(given, HybridWeights):
        return given
    names = {field.name for field in fields(HybridWeights)}
    if isinstance(given, Mapping) and given and set(given) <= names:
        return HybridWeights(**given)
    raise InputError(
        "weights expects HybridWeights such as HybridWeights(dense=1, sparse=0.3, colbert=1), or a "
        f"mapping of these names, got {given!r:.80}. Name each number."
    )


def check_weights(
    weights: HybridWeights | Mapping[str, float] | None, *, default: HybridWeights
) -> HybridWeights:
    """Return the weights, or ``default`` for None; see ``as_weights``."""
    return as_weights(weights) or default


@guided()
@dataclass(frozen=True, slots=True)
class Recall:
    """How many documents each leg recalls; None ranks every document.

    lexical counts for each lexical leg (sparse, bm25). The paper recalls 1000 a leg.
    """

    dense: int | None = 100
    lexical: int | None = 100

    def __post_init__(self) -> None:
        for name, depth in (("dense", self.dense), ("lexical", self.lexical)):
            if depth is not None:
                check_k(depth, name=f"recall {name}")

    @classmethod
    def everything(cls) -> Recall:
        """Return a recall that scores the whole collection, for an exact hybrid ranking."""
        return cls(dense=None, lexical=None)

    def depth(self, leg: Mode) -> int | None:
        """Return how many documents a leg recalls, None for all."""
        return self.dense if leg == "dense" else self.lexical


@dataclass(frozen=True, slots=True)
class Plan:
    """How one hybrid search goes, from the first recall to the order of the hits.

    legs: recall candidates, each to the depth that ``recall`` gives it. weights: of the
    hybrid score. fusion: joins the legs' rankings and orders by them alone; None orders by
    the hybrid score. outputs: what the model makes; a mode that it lacks is not scored.

    Raises InputError where nothing would order the hits.

    >>> plan = Plan(legs=("dense", "bm25"), weights=HybridWeights(dense=1, sparse=0.5, colbert=0))
    >>> plan.modes, plan.weighted
    (('dense', 'bm25'), {'dense': 1.0, 'bm25': 0.5})
    """

    legs: tuple[Mode, ...] = DEFAULT_LEGS
    recall: Recall = field(default_factory=Recall)
    weights: HybridWeights = field(default_factory=HybridWeights)
    fusion: Fusion | None = None
    outputs: tuple[Output, ...] = ALL_OUTPUTS

    def __post_init__(self) -> None:
        if self.fusion is None and not self.weighted:
            raise InputError(
                f"A hybrid score expects a weight above 0 for one of {self.modes}, got "
                f"{self.weights}. Give one of these modes a weight, or another leg."
            )

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that every candidate is scored in: the legs, and what the weights add."""
        wants_dense = "dense" in self.legs or self.weights.dense > 0
        scores_dense = wants_dense and "dense" in self.outputs
        dense: tuple[Mode, ...] = ("dense",) if scores_dense else ()
        lexical = tuple(leg for leg in self.legs if leg != "dense")
        scores_colbert = self.weights.colbert > 0 and "colbert" in self.outputs
        colbert: tuple[Mode, ...] = ("colbert",) if scores_colbert else ()
        return (*dense, *lexical, *colbert)

    @property
    def weighted(self) -> dict[Mode, float]:
        """The modes that enter the hybrid score, with their weights.

        Of two lexical legs M3's counts; BM25 then only recalls.
        """
        counted = [mode for mode in self.modes if mode != "bm25" or "sparse" not in self.modes]
        return {mode: self.weights.of(mode) for mode in counted if self.weights.of(mode) > 0}

    @property
    def total_weight(self) -> float:
        """The sum of the weights that count, by which a hybrid score of unit parts is 1."""
        return math.fsum(self.weighted.values())


def encoded_modes(modes: Iterable[Mode]) -> tuple[Output, ...]:
    """Return the modes that an encoder makes; BM25 reads the texts themselves.

    >>> encoded_modes(["dense", "bm25"])
    ('dense',)
    """
    return tuple(mode for mode in modes if mode != "bm25")


def name_of(mode: str) -> str:
    """Return how a mode is written for people.

    >>> name_of("colbert"), name_of("dense")
    ('ColBERT', 'dense')
    """
    return {"bm25": "BM25", "colbert": "ColBERT"}.get(mode, mode)
