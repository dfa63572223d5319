"""Training M3: the plan of batches, the module, the loop with its guards, and the save."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor, nn
from transformers import set_seed

from m3_retrievers.encoder.checkpoint import Checkpoint
from m3_retrievers.errors import TrainingDataError
from m3_retrievers.training.batches import Plan
from m3_retrievers.training.collate import Collator, Step
from m3_retrievers.training.data import Example, read_examples
from m3_retrievers.training.gather import world
from m3_retrievers.training.guards import SparseGuard, check_loss
from m3_retrievers.training.loop import Job, batches_needed, has_checkpoint, run_job
from m3_retrievers.training.model import M3Module, StepResult
from m3_retrievers.training.prior import LexicalPrior
from m3_retrievers.training.saving import save_model
from m3_retrievers.training.settings import TrainSettings
from m3_retrievers.training.start import start

LOG_FILE = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run leaves behind: the model's folder, and the figures logged on the way."""

    folder: Path
    log: tuple[Mapping[str, float], ...]


def train(
    settings: TrainSettings,
    examples: Sequence[Example] | None = None,
    *,
    resume: bool = True,
    show_progress: bool = False,
) -> Trained:
    """Train a model and save it to ``settings.out``; return where, and the log.

    examples: read from ``settings.data`` by default. resume: go on from the last complete
    checkpoint in ``settings.out``, if there is one; a kill loses the steps since then.
    Raises MissingExtraError without the extra ``train``, TrainingDataError where the data
    teach nothing, TrainingError where the run went astray.
    """
    if examples is None:
        examples = [one for path in settings.data for one in read_examples(path)]
    if not examples:
        raise TrainingDataError(
            f"Training expects at least one example, got none from {list(settings.data)}. Name "
            ".jsonl files, or folders that hold some."
        )
    out = Path(settings.out)
    set_seed(settings.seed)
    plan = Plan(
        examples, settings=settings.batch, steps=batches_needed(settings), seed=settings.seed
    )
    # what a checkpoint holds is not fitted first: the idf start takes a minute on a processor
    fit = not (resume and has_checkpoint(settings.out))
    source, model = start(settings, [one.positives[0] for one in examples], fit=fit)
    module = M3Module.of(model, settings, prior=_prior(settings, examples, model))
    batch = settings.batch
    job = Job(
        module=module,
        plan=plan,
        collate=Collator(
            model.tokenizer, model.frame, batch.query_max_length, batch.passage_max_length
        ),
        run=_Steps(settings),
        settings=settings,
        described=asdict(settings),
    )
    log = run_job(job, resume=resume, show_progress=show_progress)
    if world()[0] == 0:
        save_model(module, out, source=source, weights=settings.weights)
        lines = (json.dumps(line) + "\n" for line in log)
        (out / LOG_FILE).write_text("".join(lines), "utf-8")
    return Trained(out, log)


def _prior(
    settings: TrainSettings, examples: Sequence[Example], model: Checkpoint
) -> LexicalPrior | None:
    """Return the BM25 weights that the sparse head is held near; None where it is not."""
    if not settings.loss.prior_share or "sparse" not in settings.modes:
        return None
    texts = [text for one in examples for text in (*one.positives, *one.negatives)]
    return LexicalPrior.of(texts, model.tokenizer, vocabulary_size=model.vocabulary_size)


class _Steps:
    """Runs one step after another, and watches them."""

    def __init__(self, settings: TrainSettings) -> None:
        self._distill_from = settings.self_distill_from
        self._guard = SparseGuard()

    def __call__(
        self, module: nn.Module, step: Step, done: int
    ) -> tuple[Tensor, Mapping[str, float]]:
        distill = self._distill_from is not None and done >= self._distill_from
        result: StepResult = module(step, distill=distill)
        check_loss(float(result.losses.total.detach()), step=done)
        self._guard.watch(result.active, step=done)
        figures = {name: float(loss.detach()) for name, loss in result.losses.parts.items()}
        if result.active is not None:
            figures["active_terms"] = result.active
        return result.losses.total, {
            **figures,
            "queries": float(len(step.queries)),
            "cut_texts": float(step.cut),
        }
