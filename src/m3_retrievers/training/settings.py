"""What a training run is told, as frozen records, and how a TOML file states it."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from m3_retrievers.errors import InputError
from m3_retrievers.types.plan import HybridWeights

Mode: TypeAlias = Literal["dense", "sparse", "colbert"]
MODES: tuple[Mode, ...] = ("dense", "sparse", "colbert")
TEACHERS = ("kl_div", "m3_kd_loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """The constants of the M3 loss (paper section 3.3, FlagEmbedding 1.4.2).

    temperature: similarities are divided by it. ensemble: weights of the modes in the
    ensemble score, which is also the teacher of self-distillation. sparse_share: the weight
    of the sparse mode's loss beside the others' 1. teacher: what scores of an outside
    teacher are used for.
    prior_share: of a loss that holds term weights near those of plain lexical matching
    (``training.prior``). anchor_share: of a loss by which the model as it began, before the
    first step, teaches the dense and the ColBERT mode; both keep what training texts cannot show.
    """

    temperature: float = 0.02
    ensemble: HybridWeights = field(default_factory=HybridWeights)
    sparse_share: float = 0.1
    teacher: Literal["kl_div", "m3_kd_loss"] = "kl_div"
    prior_share: float = 0.0
    anchor_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prior_share", "anchor_share"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} expects a number from 0, got {getattr(self, name)!r}.")
        if not self.temperature > 0:
            raise InputError(f"temperature expects a number above 0, got {self.temperature!r}.")
        if not self.sparse_share > 0:
            raise InputError(f"sparse_share expects a number above 0, got {self.sparse_share!r}.")
        if self.teacher not in TEACHERS:
            raise InputError(f"teacher expects one of {TEACHERS}, got {self.teacher!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """A low-rank delta on the backbone's linear layers (LoRA, arXiv 2106.09685).

    layers: the last parts of the names of the layers it is put on.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    layers: tuple[str, ...] = ("query", "key", "value", "dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """Which examples share a step.

    group_size: passages a query, the first of them positive. tokens: estimated tokens of
    all passages of a step, so that short texts come in larger batches. max_queries: at most
    so many queries a step. lengths: upper bounds of the length buckets, in tokens.
    same_source: whether a batch is drawn from one data set. query_max_length,
    passage_max_length: tokens, the frame included. shuffle_share: how many long passages
    have their sentences shuffled (the paper: 0.2 %).
    """

    group_size: int = 2
    tokens: int = 8192
    max_queries: int = 64
    lengths: tuple[int, ...] = (64, 128, 192, 256, 384, 512, 1024, 2048, 4096, 8192)
    same_source: bool = True
    query_max_length: int = 64
    passage_max_length: int = 256
    shuffle_share: float = 0.002

    def __post_init__(self) -> None:
        for name in ("group_size", "tokens", "max_queries"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} expects at least 1, got {getattr(self, name)!r}.")
        if list(self.lengths) != sorted(set(self.lengths)) or not self.lengths:
            raise InputError(f"lengths expects rising bounds, got {self.lengths!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """One training run; every field can stand in a TOML file.

    model: a folder, a hub id, ``"m3-mini"`` or ``"m3-mini/backbone"`` (without our adapter).
    out: the folder the model is saved to. data: .jsonl files or folders of them, for ``train``
    to read where it is not handed examples.
    modes: which outputs are trained; their heads are made where the model lacks them.
    colbert_dim: width of a new ColBERT head; 0 for the hidden size.
    lora: a low-rank delta instead of all weights; None trains the whole backbone.
    steps, warmup_share, learning_rate, head_learning_rate, weight_decay: the optimiser (AdamW,
    linear decay). accumulate: batches a step, each with its own candidates.
    self_distill_from: the step from which the ensemble teaches the modes; None for never.
    in_batch_negatives: whether other queries' passages are candidates; cross_device_negatives:
    whether those of the other devices are, too. sub_batch_tokens: texts are encoded sorted by
    length, so many padded tokens at a time. gradient_caching: activations are forgotten and
    made again on the way back: the same gradient, in the memory of one sub-batch. precision: of
    the backbone; heads and scores stay in float32. dropout: None keeps the model's.
    sparse_start: what a new sparse head starts from, inverse document frequencies or chance.
    weights: the hybrid weights the saved model carries. save_every: steps between checkpoints.
    workers: processes that tokenize ahead of the model; 0 for none.
    """

    model: str
    out: str
    data: tuple[str, ...] = ()
    modes: tuple[Mode, ...] = MODES
    colbert_dim: int = 0
    lora: LoraSettings | None = None
    batch: BatchSettings = field(default_factory=BatchSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    steps: int = 1000
    accumulate: int = 1
    learning_rate: float = 2e-5
    head_learning_rate: float | None = None
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    self_distill_from: int | None = 0
    in_batch_negatives: bool = True
    cross_device_negatives: bool = False
    sub_batch_tokens: int = 4096
    gradient_caching: bool = False
    dropout: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    sparse_start: Literal["idf", "random"] = "idf"
    weights: HybridWeights | None = None
    seed: int = 0
    save_every: int = 200
    log_every: int = 10
    workers: int = 0

    def __post_init__(self) -> None:
        if not self.modes or set(self.modes) - set(MODES):
            raise InputError(f"modes expects some of {MODES}, got {self.modes!r}.")
        for name in ("steps", "accumulate", "save_every", "log_every", "sub_batch_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} expects at least 1, got {getattr(self, name)!r}.")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"precision expects 'float32' or 'bfloat16', got {self.precision!r}.")
        if self.sparse_start not in ("idf", "random"):
            raise InputError(f"sparse_start expects 'idf' or 'random', got {self.sparse_start!r}.")
        if self.workers < 0:
            raise InputError(f"workers expects a number from 0, got {self.workers!r}.")
        if self.loss.anchor_share and self.lora is None:
            raise InputError(
                "anchor_share expects a low-rank delta (lora), without which the model as it began "
                "would be a second one in memory. Add a [lora] table, or leave it out."
            )


_RECORDS: Mapping[str, type] = {
    "lora": LoraSettings,
    "batch": BatchSettings,
    "loss": LossSettings,
    "ensemble": HybridWeights,
    "weights": HybridWeights,
}


def read_settings(path: str | os.PathLike[str]) -> TrainSettings:
    """Return the settings a TOML file states; relative folders and files start at the file.

    Raises InputError where a key is unknown or missing, naming the file.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path} is expected to be a TOML file: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is no valid TOML: {error}.") from error
    settings: TrainSettings = _record(TrainSettings, content, str(path))
    # absolute: the name of the model is saved with a delta on it, and read from anywhere
    base = path.parent.resolve()
    return dataclasses.replace(
        settings,
        data=tuple(str(base / one) for one in settings.data),
        out=str(base / settings.out),
        model=str(base / settings.model) if (base / settings.model).is_dir() else settings.model,
    )


def _record(kind: type, content: Mapping[str, Any], place: str) -> Any:
    known = {one.name: one for one in dataclasses.fields(kind)}
    unknown = set(content) - set(known)
    missing = {
        name
        for name, one in known.items()
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    } - set(content)
    if unknown or missing:
        problem = f"has unknown keys {sorted(unknown)}" if unknown else f"lacks {sorted(missing)}"
        raise InputError(f"{place} {problem}; known are {sorted(known)}.")
    values = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            if name not in _RECORDS:
                raise InputError(f"{place} expects a plain value for {name!r}, got a table.")
            value = _record(_RECORDS[name], value, f"{place} [{name}]")
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
