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
Objective: TypeAlias = Literal["m3", "splade"]
QUERIES = ("model", "idf", "ones")


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
    dense_anchor_share: of the dense mode's part of it, where that is another.
    """

    temperature: float = 0.02
    ensemble: HybridWeights = field(default_factory=HybridWeights)
    sparse_share: float = 0.1
    teacher: Literal["kl_div", "m3_kd_loss"] = "kl_div"
    prior_share: float = 0.0
    anchor_share: float = 0.0
    dense_anchor_share: float | None = None

    def __post_init__(self) -> None:
        for name in ("prior_share", "anchor_share", "dense_anchor_share"):
            value = getattr(self, name)
            if not (value is None and name == "dense_anchor_share") and not value >= 0:
                raise InputError(f"{name} expects a number from 0, got {value!r}.")
        if not self.temperature > 0:
            raise InputError(f"temperature expects a number above 0, got {self.temperature!r}.")
        if not self.sparse_share > 0:
            raise InputError(f"sparse_share expects a number above 0, got {self.sparse_share!r}.")
        if self.teacher not in TEACHERS:
            raise InputError(f"teacher expects one of {TEACHERS}, got {self.teacher!r}.")

    @property
    def anchors(self) -> Mapping[str, float]:
        """The share of each mode's anchor that has one."""
        dense = self.anchor_share if self.dense_anchor_share is None else self.dense_anchor_share
        return {m: n for m, n in (("dense", dense), ("colbert", self.anchor_share)) if n}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpladeSettings:
    """The constants of SPLADE's loss (arXiv 2107.05720, section 3; 2109.10086).

    temperature: inner products are divided by it. query_flops, document_flops: the shares of the
    FLOPS losses, λ_q and λ_d; both rise from 0 with the square of the step, over the first
    ``flops_warmup`` of the run. idf_flops: whether a term's mean weight is divided by its inverse
    document frequency there, so that rare terms cost less (arXiv 2411.04403).
    queries: what weighs them: ``"model"``, the one that reads documents; no model but ``"idf"``,
    inverse document frequencies of the training passages, or ``"ones"``; None is as the folder has.
    """

    temperature: float = 1.0
    query_flops: float = 3e-4
    document_flops: float = 1e-4
    flops_warmup: float = 1 / 3
    idf_flops: bool = False
    queries: Literal["model", "idf", "ones"] | None = None

    def __post_init__(self) -> None:
        for name in ("query_flops", "document_flops"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} expects a number from 0, got {getattr(self, name)!r}.")
        if not self.temperature > 0:
            raise InputError(f"temperature expects a number above 0, got {self.temperature!r}.")
        if not 0 <= self.flops_warmup <= 1:
            raise InputError(f"flops_warmup expects a share to 1, got {self.flops_warmup!r}.")
        if self.queries is not None and self.queries not in QUERIES:
            raise InputError(f"queries expects one of {QUERIES} or None, got {self.queries!r}.")


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
    objective: ``"m3"``, or ``"splade"``: a masked-language model becomes a SPLADE model, or goes
    on as one. What only M3 has is then left out, and ``splade`` holds the loss's constants.
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
    objective: Objective = "m3"
    modes: tuple[Mode, ...] = MODES
    colbert_dim: int = 0
    lora: LoraSettings | None = None
    batch: BatchSettings = field(default_factory=BatchSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    splade: SpladeSettings = field(default_factory=SpladeSettings)
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
        self._check_objective()
        if self.workers < 0:
            raise InputError(f"workers expects a number from 0, got {self.workers!r}.")
        if self.loss.anchors and self.lora is None:
            raise InputError(
                "anchor_share expects a low-rank delta (lora), without which the model as it began "
                "would be a second one in memory. Add a [lora] table, or leave it out."
            )

    def _check_objective(self) -> None:
        """Refuse what the objective would leave unread."""
        if self.objective not in _UNREAD:
            raise InputError(f"objective expects 'm3' or 'splade', got {self.objective!r}.")
        unread = [
            one.name
            for one in dataclasses.fields(self)
            if one.name in _UNREAD[self.objective] and getattr(self, one.name) != _default(one)
        ]
        if unread:
            raise InputError(
                f"{unread} mean nothing to objective = {self.objective!r}, expected without them. "
                "Leave them out, or choose the other objective."
            )


# The settings that an objective does not read.
_UNREAD: Mapping[str, tuple[str, ...]] = {
    "m3": ("splade",),
    "splade": (
        "modes",
        "colbert_dim",
        "loss",
        "head_learning_rate",
        "self_distill_from",
        "sparse_start",
        "weights",
    ),
}


def _default(setting: dataclasses.Field[Any]) -> Any:
    if setting.default_factory is not dataclasses.MISSING:
        return setting.default_factory()
    return setting.default


_RECORDS: Mapping[str, type] = {
    "lora": LoraSettings,
    "batch": BatchSettings,
    "loss": LossSettings,
    "splade": SpladeSettings,
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
