"""How a retriever searches: its plan, whose parts are read and set one at a time."""

from __future__ import annotations

from typing import Any

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.index.base import Index
from m3_retrievers.retrieval.planning import check_index, plan_for
from m3_retrievers.types.plan import Fusion, HybridWeights, Mode, Plan, Recall


class Planned:
    """The legs, recall, weights and fusion of a retriever, kept as one plan.

    A part that is set is checked beside the others, and against the index; searches under way
    go on with the plan they began with. It holds for this retriever alone: what a durable index
    keeps beside itself is what ``open`` was given.
    """

    encoder: Encoder
    index: Index
    _plan: Plan

    @property
    def plan(self) -> Plan:
        """How searches go: legs, recall, weights and fusion."""
        return self._plan

    @property
    def legs(self) -> tuple[Mode, ...]:
        """The modes that recall candidates."""
        return self._plan.legs

    @property
    def recall(self) -> Recall:
        """The depth of each leg."""
        return self._plan.recall

    @recall.setter
    def recall(self, recall: Recall) -> None:
        self._replan(recall=recall)

    @property
    def weights(self) -> HybridWeights:
        """The weights of the hybrid score; None sets the model's own."""
        return self._plan.weights

    @weights.setter
    def weights(self, weights: HybridWeights | None) -> None:
        self._replan(weights=weights)

    @property
    def fusion(self) -> Fusion | None:
        """What joins the legs' rankings; None orders by the hybrid score."""
        return self._plan.fusion

    @fusion.setter
    def fusion(self, fusion: Fusion | None) -> None:
        self._replan(fusion=fusion)

    def _replan(self, **changed: Any) -> None:
        kept: dict[str, Any] = {
            "recall": self.recall,
            "weights": self.weights,
            "fusion": self.fusion,
        }
        plan = plan_for(self.encoder, legs=self.legs, **{**kept, **changed})
        check_index(self.index, plan)
        self._plan = plan
