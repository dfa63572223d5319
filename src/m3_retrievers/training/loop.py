"""The loop under every training of this package: transformers' Trainer, checkpoints, resume.

What is trained is a module, what it is trained on a sequence of whole batches, decided before
the run begins. So a run that was killed goes on with the very batches it would have seen.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from typing_extensions import override

from m3_retrievers.checks import require_package
from m3_retrievers.errors import InputError

_CHECKPOINTS = "checkpoints"
_WEIGHTS = "trained.safetensors"
_SETTINGS = "settings.json"
_COMPLETE = "complete"

# (module, batch, steps done) → the loss to minimise, and figures to log the mean of
Run = Callable[[nn.Module, Any, int], tuple[Tensor, Mapping[str, float]]]


class Optimised(Protocol):
    """The settings the loop itself reads."""

    @property
    def out(self) -> str: ...
    @property
    def steps(self) -> int: ...
    @property
    def accumulate(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def head_learning_rate(self) -> float | None: ...
    @property
    def warmup_share(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def save_every(self) -> int: ...
    @property
    def log_every(self) -> int: ...
    @property
    def workers(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Job:
    """One training: the module, its batches by step, how they are collated, one step, settings.

    described: the settings as JSON; a checkpoint made with others is not resumed from.
    """

    module: nn.Module
    plan: Sequence[Any]
    collate: Callable[[Any], Any]
    run: Run
    settings: Optimised
    described: Mapping[str, Any]


def run_job(
    job: Job, *, resume: bool = True, show_progress: bool = False
) -> tuple[Mapping[str, float], ...]:
    """Train the module in place and return the log, one record a line.

    resume: go on from the last complete checkpoint. Raises MissingExtraError without the
    extra ``train``, InputError if the checkpoint was made with other settings.
    """
    require_package("accelerate", module="accelerate", extra="train", purpose="Training")
    trainer = _Loop(job)
    if show_progress:
        trainer.add_callback(ProgressCallback())
    if not resume:
        _forget_checkpoints(Path(job.settings.out))
    trainer.train(resume_from_checkpoint=_last_checkpoint(job))
    job.module.eval()
    return tuple(trainer.state.log_history)


def has_checkpoint(out: str) -> bool:
    """Whether a run that saves to ``out`` has a complete checkpoint to go on from."""
    return any((Path(out) / _CHECKPOINTS).glob(f"checkpoint-*/{_COMPLETE}"))


def batches_needed(settings: Optimised) -> int:
    """Return how many batches a run takes, over all processes."""
    return settings.steps * settings.accumulate * int(os.environ.get("WORLD_SIZE", "1"))


class _Items(Dataset[Any]):
    def __init__(self, plan: Sequence[Any]) -> None:
        self._plan = plan

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, step: int) -> Any:
        return self._plan[step]


class _Loop(Trainer):
    """One item of the dataset is a whole batch, so the loader only hands them on in order."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sums: dict[str, float] = defaultdict(float)
        self._count = 0
        super().__init__(
            model=job.module,
            args=_arguments(job.settings),
            train_dataset=_Items(job.plan),
            data_collator=lambda batches: {"batch": job.collate(batches[0])},
            callbacks=[_MarkComplete()],
        )
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)

    @override
    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self._job.plan)

    @override
    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        total, figures = self._job.run(model, inputs["batch"], self.state.global_step)
        self._count += 1
        for name, value in figures.items():
            self._sums[name] += value
        return (total, figures) if return_outputs else total

    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each figure since the last line."""
        if self._count and "loss" in logs:
            logs |= {name: total / self._count for name, total in self._sums.items()}
            self._sums.clear()
            self._count = 0
        super().log(logs, start_time)

    @override
    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Give the heads a learning rate of their own, and biases and norms no decay."""
        settings = self._job.settings
        head_rate = settings.head_learning_rate or settings.learning_rate
        groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in self._job.module.named_parameters():
            if parameter.requires_grad:
                rate = head_rate if name.startswith("heads.") else settings.learning_rate
                decay = settings.weight_decay if parameter.ndim > 1 else 0.0
                groups[rate, decay].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": found, "lr": rate, "weight_decay": decay}
                for (rate, decay), found in groups.items()
            ],
            lr=settings.learning_rate,
        )
        return self.optimizer

    @override
    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        """Write what is trained; the rest lies where the model came from."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_trained(self._job.module), folder / _WEIGHTS)
        (folder / _SETTINGS).write_text(_text(self._job.described), "utf-8")

    @override
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state = load_file(Path(resume_from_checkpoint) / _WEIGHTS)
        self._job.module.load_state_dict(state, strict=False)


class _MarkComplete(TrainerCallback):
    """Marks a checkpoint once all of its files are written; a torn one is never resumed from."""

    @override
    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            (folder / _COMPLETE).touch()


def _arguments(settings: Optimised) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(Path(settings.out) / _CHECKPOINTS),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.accumulate,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.warmup_share * settings.steps),
        save_strategy="steps",
        save_steps=settings.save_every,
        save_total_limit=2,
        # a run that is shorter logs its last step
        logging_steps=min(settings.log_every, settings.steps),
        dataloader_num_workers=settings.workers,
        seed=settings.seed,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        log_level="error",
        # without this, several processes without an accelerator would not share their gradients
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
    )


def _trained(module: nn.Module) -> dict[str, Tensor]:
    # a tied tensor has several names, and named_parameters gives it once
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def _text(described: Mapping[str, Any]) -> str:
    return json.dumps(described, indent=2, sort_keys=True) + "\n"


def _last_checkpoint(job: Job) -> str | None:
    """Return the newest complete checkpoint; InputError if another run made it."""
    folder = Path(job.settings.out) / _CHECKPOINTS
    found = [path.parent for path in folder.glob(f"checkpoint-*/{_COMPLETE}")]
    if not found:
        return None
    newest = max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]))
    made_by = json.loads((newest / _SETTINGS).read_text("utf-8"))
    now = json.loads(_text(job.described))
    changed = sorted(name for name in {*now, *made_by} if made_by.get(name) != now.get(name))
    if changed:
        raise InputError(
            f"{newest} was made with other settings ({', '.join(changed)} differ), and a run only "
            "goes on as it began. Restore them, choose another folder for out, or pass "
            "resume=False to begin anew."
        )
    return str(newest)


def _forget_checkpoints(out: Path) -> None:
    """Delete the checkpoints an earlier run left, and nothing that is not one of them."""
    for folder in (out / _CHECKPOINTS).glob("checkpoint-*"):
        if (folder / _SETTINGS).is_file():
            shutil.rmtree(folder)
