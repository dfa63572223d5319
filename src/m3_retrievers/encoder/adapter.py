"""A low-rank delta (LoRA, arXiv 2106.09685) in PEFT's own files, added to a backbone.

``adapter_config.json`` and ``adapter_model.safetensors`` as PEFT writes them; PEFT itself is
not needed to use them. Every wrapped layer becomes W + scale · B·A, once, at load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from m3_retrievers.encoder.files import is_there, map_tensors, read_json
from m3_retrievers.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Options of PEFT that leave the delta at W + scale · B·A, whatever their value. All others, those
# of later versions too, are refused where they are set: most change the arithmetic.
_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules",
    "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha",
    "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core", "peft_version",
    "qalora_group_size", "r", "revision", "runtime_config", "target_modules", "task_type",
    "use_rslora",
}  # fmt: skip
# Other ways to start (pissa, olora, loftq …) change the backbone's own weights as well.
_MERGEABLE: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian", "orthogonal", "eva"),
}
# BERT's head for pairs of sentences, which no representation is made of.
_UNREAD = "pooler."


@dataclass(frozen=True, slots=True)
class Adapter:
    """A delta on disk: its folder, the backbone it was trained on, its rank, the factor of B·A."""

    folder: Path
    backbone: str
    revision: str | None
    rank: int
    scale: float

    @property
    def files(self) -> tuple[Path, ...]:
        """The file that holds the delta's numbers."""
        return (self.folder / WEIGHTS,)


def find_adapter(folder: Path) -> Adapter | None:
    """Return the delta a folder holds, or None.

    Raises CheckpointError where its configuration cannot be merged as W + scale · B·A.
    """
    path = folder / CONFIG
    if not is_there(path):
        return None
    config = read_json(path)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    backbone, revision = config.get("base_model_name_or_path"), config.get("revision")
    if (
        type(rank) is not int
        or not 1 <= rank < 2**31
        or isinstance(alpha, bool)
        or not isinstance(alpha, int | float)
        or not math.isfinite(alpha)
        or not isinstance(backbone, str)
        or not isinstance(revision, str | None)
    ):
        raise CheckpointError(
            f"{path} is expected to be a LoRA configuration with r, lora_alpha and "
            f"base_model_name_or_path, got r={rank!r:.40}, lora_alpha={alpha!r:.40}, "
            f"base_model_name_or_path={backbone!r:.80}, revision={revision!r:.40}. Save the "
            "adapter again with PEFT."
        )
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    for name, value in config.items():
        if name not in _HARMLESS and value and value not in _MERGEABLE.get(name, ()):
            raise CheckpointError(
                f"{path} has {name}={value!r:.80}, expected a delta that is W + scale · B·A alone. "
                "Merge it with PEFT (merge_and_unload) and save the whole model."
            )
    return Adapter(folder, backbone, revision, rank, scale)


@torch.no_grad()
def merge(adapter: Adapter, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of linear layers that the delta changes, changed, in float32.

    weights: of all linear layers of the backbone, by the layer's name.

    Raises CheckpointError where a file is torn, or a tensor has no place or no partner.
    """
    path, changed = adapter.folder / WEIGHTS, {}
    for name, (low, up) in _pairs(map_tensors(path), path).items():
        if name not in weights and name.startswith(_UNREAD):
            continue
        if name not in weights:
            raise CheckpointError(
                f"{path} has a delta for {name}, and the backbone has no linear layer of that "
                "name. Use the backbone it was trained on."
            )
        rows, columns = weights[name].shape
        expected = [adapter.rank, columns], [rows, adapter.rank]
        found = list(low.shape), list(up.shape)
        if found != expected:
            raise CheckpointError(
                f"{path} expects A and B of {name} to have shapes {expected}, got {found}. "
                f"Use the backbone and configuration it was trained with ({adapter.backbone})."
            )
        delta = adapter.scale * (up.float() @ low.float())
        if not torch.isfinite(delta).all():
            raise CheckpointError(
                f"{path} expects finite numbers, got NaN or infinity for {name}. Save it again."
            )
        changed[name] = weights[name].float() + delta
    return changed


def merge_into(adapter: Adapter, backbone: nn.Module) -> None:
    """Add the delta to the linear layers of a backbone, in place."""
    layers = {n: one for n, one in backbone.named_modules() if isinstance(one, nn.Linear)}
    changed = merge(adapter, {name: layer.weight for name, layer in layers.items()})
    with torch.no_grad():
        for name, weight in changed.items():
            layers[name].weight.copy_(weight)


def _pairs(state: Mapping[str, Tensor], path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A (r, in) and B (out, r) by the name of their layer."""
    halves: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, dot, half = key.removesuffix(".weight").rpartition(".")
        if not (key.startswith(_PREFIX) and dot and half in ("lora_A", "lora_B")):
            raise CheckpointError(
                f"{path} holds {key!r}, expected {_PREFIX}<layer>.lora_A.weight and lora_B.weight "
                "alone. Save the adapter again with PEFT, or merge it there."
            )
        halves.setdefault(name.removeprefix(_PREFIX), {})[half] = value
    lone = [name for name, found in halves.items() if len(found) < 2]
    if lone or not halves:
        raise CheckpointError(
            f"{path} expects lora_A and lora_B for every layer, got one of them for {lone}. "
            "Copy the adapter's file again."
        )
    return {name: (found["lora_A"], found["lora_B"]) for name, found in halves.items()}
