"""Training M3 or SPLADE: the plan of batches, the module, the loop and its guards, the save."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import set_seed

from m3_retrievers.encoder.checkpoint import Checkpoint
from m3_retrievers.encoder.reading import Reader
from m3_retrievers.errors import TrainingDataError
from m3_retrievers.training.batches import Plan
from m3_retrievers.training.collate import Collator, Step
from m3_retrievers.training.data import Example, read_examples
from m3_retrievers.training.gather import world
from m3_retrievers.training.guards import OF_SPLADE, SparseGuard, check_loss
from m3_retrievers.training.loop import Job, batches_needed, has_checkpoint, run_job
from m3_retrievers.training.model import M3Module, StepResult
from m3_retrievers.training.prior import LexicalPrior
from m3_retrievers.training.saving import save_model
from m3_retrievers.training.settings import TrainSettings
from m3_retrievers.training.splade.saving import save_splade
from m3_retrievers.training.splade.sparsity import ramp
from m3_retrievers.training.splade.start import start_splade
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
    splade = settings.objective == "splade"
    task = _splade(settings, examples) if splade else _m3(settings, examples, fit=fit)
    batch = settings.batch
    job = Job(
        module=task.module,
        plan=plan,
        collate=Collator(
            task.model.tokenizer, task.model.frame, batch.query_max_length, batch.passage_max_length
        ),
        run=_Steps(task),
        settings=settings,
        described=asdict(settings),
    )
    log = run_job(job, resume=resume, show_progress=show_progress)
    if world()[0] == 0:
        task.save(out)
        lines = (json.dumps(line) + "\n" for line in log)
        (out / LOG_FILE).write_text("".join(lines), "utf-8")
    return Trained(out, log)


@dataclass(frozen=True, slots=True)
class _Task:
    """What an objective trains. of_step: what the module is told of a step, by the steps done."""

    module: nn.Module
    model: Reader
    of_step: Callable[[int], Mapping[str, Any]]
    guard: SparseGuard
    save: Callable[[Path], None]


def _m3(settings: TrainSettings, examples: Sequence[Example], *, fit: bool) -> _Task:
    source, model = start(settings, [one.positives[0] for one in examples], fit=fit)
    module = M3Module.of(model, settings, prior=_prior(settings, examples, model))
    first = settings.self_distill_from
    return _Task(
        module,
        model,
        of_step=lambda done: {"distill": first is not None and done >= first},
        guard=SparseGuard(),
        save=partial(save_model, module, source=source, weights=settings.weights),
    )


def _splade(settings: TrainSettings, examples: Sequence[Example]) -> _Task:
    module = start_splade(settings, _texts(examples))
    warmup = settings.splade.flops_warmup * settings.steps
    return _Task(
        module,
        module.model,
        of_step=lambda done: {"flops_share": ramp(done, steps=warmup)},
        guard=SparseGuard(advice=OF_SPLADE, of="texts"),
        save=partial(save_splade, module),
    )


def _texts(examples: Sequence[Example]) -> list[str]:
    return [text for one in examples for text in (*one.positives, *one.negatives)]


def _prior(
    settings: TrainSettings, examples: Sequence[Example], model: Checkpoint
) -> LexicalPrior | None:
    """Return the BM25 weights that the sparse head is held near; None where it is not."""
    if not settings.loss.prior_share or "sparse" not in settings.modes:
        return None
    return LexicalPrior.of(_texts(examples), model.tokenizer, vocabulary_size=model.vocabulary_size)


class _Steps:
    """Runs one step after another, and watches them."""

    def __init__(self, task: _Task) -> None:
        self._of_step, self._guard = task.of_step, task.guard

    def __call__(
        self, module: nn.Module, step: Step, done: int
    ) -> tuple[Tensor, Mapping[str, float]]:
        result: StepResult = module(step, **self._of_step(done))
        check_loss(float(result.losses.total.detach()), step=done)
        self._guard.watch(result.active, step=done)
        figures = {name: float(loss.detach()) for name, loss in result.losses.parts.items()}
        if result.active is not None:
            figures["active_terms"] = result.active
        return result.losses.total, {
            **figures,
            **result.figures,
            "queries": float(len(step.queries)),
            "cut_texts": float(step.cut),
        }
