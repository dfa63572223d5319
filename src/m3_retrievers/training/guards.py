"""What is watched while a model trains, and stopped before hours are lost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from m3_retrievers.errors import TrainingError, TrainingWarning, warn

# A sparse head that is silent for so many steps in a row has no gradient to come back by.
_SILENT_STEPS = 20
_NEARLY_SILENT = 0.01
OF_A_HEAD = (
    "Go back to an earlier checkpoint with a smaller head_learning_rate, raise loss.sparse_share, "
    'let self_distill_from come later, or start it from sparse_start = "idf".'
)
OF_SPLADE = (
    "Go back to an earlier checkpoint with a smaller learning_rate, or with smaller query_flops "
    "and document_flops that rise for longer (flops_warmup)."
)


@dataclass(slots=True)
class SparseGuard:
    """Watches the share of tokens with a term weight above 0, step by step.

    advice: what to do where it stays at 0. of: what the share is of.
    """

    advice: str = OF_A_HEAD
    of: str = "tokens"
    silent: int = 0
    warned: bool = False

    def watch(self, active: float | None, *, step: int) -> None:
        """Warn once under 1 %; raise TrainingError after 20 steps at 0."""
        if active is None:
            return
        self.silent = self.silent + 1 if active == 0 else 0
        if self.silent >= _SILENT_STEPS:
            raise TrainingError(
                f"The sparse output had no term weight above 0 for {self.silent} steps up to step "
                f"{step}: ReLU passes no gradient, so it will stay at zero. {self.advice}"
            )
        if active < _NEARLY_SILENT and not self.warned:
            self.warned = True
            warn(
                f"At step {step} only {active:.2%} of the {self.of} have a term weight above 0. "
                "The sparse output may be going to zero; a smaller learning rate helps.",
                TrainingWarning,
            )


def check_loss(loss: float, *, step: int) -> None:
    """Raise TrainingError if the loss is no number."""
    if not math.isfinite(loss):
        raise TrainingError(
            f"The loss of step {step} is {loss}, expected a finite number. Go back to the last "
            'checkpoint with a smaller learning_rate, or with precision = "float32".'
        )
