"""The run itself: transformers' Trainer over the plan, the M3 loss, checkpoints, the save."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from typing_extensions import override

from m3_retrievers.errors import InputError
from m3_retrievers.lazy import require_package
from m3_retrievers.training.batches import Draw, Plan
from m3_retrievers.training.collate import Collator, Step
from m3_retrievers.training.data import Example, read_examples
from m3_retrievers.training.guards import SparseGuard, check_loss
from m3_retrievers.training.model import M3Module, StepResult
from m3_retrievers.training.saving import save_model
from m3_retrievers.training.settings import TrainSettings
from m3_retrievers.training.start import start

LOG_FILE = "log.jsonl"
_CHECKPOINTS = "checkpoints"
_WEIGHTS = "trained.safetensors"
_COMPLETE = "complete"


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
    require_package("accelerate", module="accelerate", extra="train", purpose="Training")
    if examples is None:
        examples = [one for path in settings.data for one in read_examples(path)]
    out = Path(settings.out)
    set_seed(settings.seed)
    plan = Plan(
        examples,
        settings=settings.batch,
        steps=settings.steps * settings.accumulate * _world_size(),
        seed=settings.seed,
    )
    source, model = start(settings, [one.positives[0] for one in examples])
    module = M3Module.of(model, settings)
    trainer = _M3Trainer(module, settings, plan)
    if show_progress:
        trainer.add_callback(ProgressCallback())
    if not resume:
        _forget_checkpoints(out)
    trainer.train(resume_from_checkpoint=_last_checkpoint(out, settings))
    module.eval()
    log = tuple(trainer.state.log_history)
    if trainer.is_world_process_zero():
        save_model(module, out, source=source, weights=settings.weights)
        lines = (json.dumps(line) + "\n" for line in log)
        (out / LOG_FILE).write_text("".join(lines), "utf-8")
    return Trained(out, log)


class _Steps(Dataset[list[Draw]]):
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, step: int) -> list[Draw]:
        return self._plan[step]


class _M3Trainer(Trainer):
    """One item of the dataset is a whole batch, so the loader only hands them on in order."""

    def __init__(self, module: M3Module, settings: TrainSettings, plan: Plan) -> None:
        self._settings = settings
        self._module = module
        self._plan = plan
        self._guard = SparseGuard()
        self._sums: dict[str, float] = defaultdict(float)
        self._count = 0
        collator = Collator(
            module.checkpoint.tokenizer,
            module.checkpoint.frame,
            settings.batch.query_max_length,
            settings.batch.passage_max_length,
        )
        super().__init__(
            model=module,
            args=_arguments(settings),
            train_dataset=_Steps(plan),
            data_collator=lambda batches: {"step": collator(batches[0])},
            callbacks=[_MarkComplete()],
        )
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)

    @override
    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self._plan)

    @override
    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        step: Step = inputs["step"]
        begin = self._settings.self_distill_from
        done = self.state.global_step
        result: StepResult = model(step, distill=begin is not None and done >= begin)
        total = result.losses.total
        self._watch(result, step)
        return (total, result) if return_outputs else total

    def _watch(self, result: StepResult, step: Step) -> None:
        done = self.state.global_step
        check_loss(float(result.losses.total.detach()), step=done)
        self._guard.watch(result.active, step=done)
        self._count += 1
        for name, loss in result.losses.parts.items():
            self._sums[name] += float(loss.detach())
        if result.active is not None:
            self._sums["active_terms"] += result.active
        self._sums["queries"] += len(step.queries)
        self._sums["cut_texts"] += step.cut

    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each part of the loss since the last line."""
        if self._count and "loss" in logs:
            logs |= {name: total / self._count for name, total in self._sums.items()}
            self._sums.clear()
            self._count = 0
        super().log(logs, start_time)

    @override
    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Give the heads a learning rate of their own, and biases and norms no decay."""
        settings = self._settings
        head_rate = settings.head_learning_rate or settings.learning_rate
        groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in self._module.named_parameters():
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
        save_file(_trained(self._module), folder / _WEIGHTS)
        (folder / "settings.json").write_text(_settings_text(self._settings), "utf-8")

    @override
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state = load_file(Path(resume_from_checkpoint) / _WEIGHTS)
        self._module.load_state_dict(state, strict=False)


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


def _arguments(settings: TrainSettings) -> TrainingArguments:
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
        logging_steps=settings.log_every,
        seed=settings.seed,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        log_level="error",
    )


def _trained(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def _settings_text(settings: TrainSettings) -> str:
    return json.dumps(asdict(settings), indent=2, sort_keys=True) + "\n"


def _last_checkpoint(out: Path, settings: TrainSettings) -> str | None:
    """Return the newest complete checkpoint; InputError if another run made it."""
    found = [path.parent for path in (out / _CHECKPOINTS).glob(f"checkpoint-*/{_COMPLETE}")]
    if not found:
        return None
    newest = max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]))
    made_by = json.loads((newest / "settings.json").read_text("utf-8"))
    now = json.loads(_settings_text(settings))
    changed = sorted(name for name in now if made_by.get(name) != now[name])
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
        if (folder / "settings.json").is_file():
            shutil.rmtree(folder)


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
