"""How an evaluation retrieves: which documents a mode's ranking is made of, and their scores.

``"union"`` is ours: a single mode ranks every document; a hybrid ranks the union of what its
legs recall, every missing score computed exactly. ``"paper"`` is that of BGE-M3 (arXiv
2402.03216, section 4 and appendix): dense and sparse to depth 1000; Dense+Sparse over the union,
where a score a leg did not recall counts 0; Multi-vector and All re-rank the dense top 200.
In both, a document that shares no term with a query is not retrieved by a lexical leg.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from m3_retrievers import scoring
from m3_retrievers.checks import check_k
from m3_retrievers.errors import InputError
from m3_retrievers.evaluation.metrics import reach
from m3_retrievers.evaluation.scores import Block
from m3_retrievers.scoring.top import top_k
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import HybridWeights, Mode

ProtocolName: TypeAlias = Literal["union", "paper"]
# For each query the best documents' rows, and their scores.
BestRows: TypeAlias = list[tuple[NDArray[np.int64], Floats]]
# Documents each leg of a hybrid recalls.
_RECALL: dict[str, int] = {"union": 100, "paper": 1000}
# Documents kept a query, where no measure looks further.
_KEPT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationProtocol:
    """Which documents are ranked, and to what depth.

    name: ``"union"`` or ``"paper"``, as the module says. recall: documents each leg of a hybrid
    recalls; None is 100, the paper's 1000. reranked: dense documents that ColBERT reorders
    (``"paper"`` alone). depth: documents kept a query; None is 100, or as far as the measures
    look.

    Raises InputError for an unknown name or a depth below 1.

    >>> EvaluationProtocol(name="paper").leg_depth
    1000
    """

    name: ProtocolName = "union"
    recall: int | None = None
    reranked: int = 200
    depth: int | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(ProtocolName):
            raise InputError(f"protocol expects 'union' or 'paper', got {self.name!r}.")
        for name in ("recall", "reranked", "depth"):
            if getattr(self, name) is not None:
                check_k(getattr(self, name), name=name)

    @classmethod
    def of(cls, protocol: EvaluationProtocol | ProtocolName) -> EvaluationProtocol:
        """Return a protocol as it is, and that of a name."""
        return protocol if isinstance(protocol, cls) else cls(name=protocol)  # type: ignore[arg-type]

    @property
    def leg_depth(self) -> int:
        """Documents each leg of a hybrid recalls."""
        return _RECALL[self.name] if self.recall is None else self.recall

    def kept(self, measures: Sequence[str]) -> int:
        """Return how many documents a query to keep; InputError where a measure looks further."""
        needed = reach(measures)
        if self.depth is None:
            return max(_KEPT, needed)
        if self.depth < needed:
            raise InputError(
                f"depth expects at least {needed}, as far as {list(measures)} look, got "
                f"{self.depth}."
            )
        return self.depth

    def notes(self, components: Sequence[Mode]) -> tuple[str, ...]:
        """Return what a reader must know about modes ranked by this protocol."""
        if self.name == "paper" and "colbert" in components:
            return (f"with ColBERT, the dense top {self.reranked} reordered",)
        return ()

    def ranked(
        self, block: Block, components: tuple[Mode, ...], weights: HybridWeights, *, depth: int
    ) -> BestRows:
        """Return for each query of a block the best ``depth`` rows and their scores.

        components: the modes whose weighted scores are added; a single one is not weighed.
        """
        paper = self.name == "paper"
        if len(components) == 1 and not (paper and components[0] == "colbert"):
            (mode,) = components
            return _best(block.scores[mode], block.matched(mode), depth)
        shares: dict[str, Floats] = {mode: block.shares(mode) for mode in components}
        if paper and "colbert" in components:
            found = block.recalled("dense", self.reranked)
        else:
            legs = [mode for mode in components if mode != "colbert"]
            recalled = {leg: block.recalled(leg, self.leg_depth) for leg in legs}
            found = np.logical_or.reduce(list(recalled.values()))
            if paper:
                shares = {leg: np.where(recalled[leg], shares[leg], 0.0) for leg in legs}
        if len(components) == 1:
            return _best(shares[components[0]], found, depth)
        return _best(scoring.hybrid(shares, weights), found, depth)


def _best(scores: Floats, found: NDArray[np.bool_], depth: int) -> BestRows:
    """Return for each query the best rows among those found, and their scores."""
    ranked = []
    for values, mask in zip(scores, found, strict=True):
        rows = top_k(values, depth, candidates=mask)
        ranked.append((rows, values[rows]))
    return ranked
