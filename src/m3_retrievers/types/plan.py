"""How a hybrid search goes: legs, depths, and what orders the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from m3_retrievers.checks import check_k
from m3_retrievers.errors import InputError
from m3_retrievers.types.hits import Ranking

Mode: TypeAlias = Literal["dense", "sparse", "bm25", "colbert"]


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
                raise InputError(f"weight {part.name} expects a number, got {value!r}.")
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


Fusion = Callable[[Mapping[str, Ranking]], Ranking]

LEGS: tuple[Mode, ...] = ("dense", "sparse", "bm25")
DEFAULT_LEGS: tuple[Mode, ...] = ("dense", "sparse")


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


def name_of(mode: str) -> str:
    """Return how a mode is written for people.

    >>> name_of("colbert"), name_of("dense")
    ('ColBERT', 'dense')
    """
    return {"bm25": "BM25", "colbert": "ColBERT"}.get(mode, mode)
