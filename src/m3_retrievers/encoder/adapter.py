"""A low-rank delta (LoRA, arXiv 2106.09685) in PEFT's own files, added to a backbone.

``adapter_config.json`` and ``adapter_model.safetensors`` as PEFT writes them; PEFT itself is
not needed to use them. Every wrapped layer becomes W + scale · B·A, once, at load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from m3_retrievers.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
# What would change more than W + scale · B·A; anything but these values is refused.
_PLAIN: Mapping[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "fan_in_fan_out": False,
    "lora_bias": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layer_replication": None,
    "trainable_token_indices": None,
}


@dataclass(frozen=True, slots=True)
class Adapter:
    """A delta on disk: its folder, the backbone it was trained on, and the factor of B·A."""

    folder: Path
    backbone: str
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
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text("utf-8"))
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        backbone = str(config["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is expected to be a LoRA configuration with r, lora_alpha and "
            f"base_model_name_or_path ({error!r}). Save the adapter again with PEFT."
        ) from error
    for name, plain in _PLAIN.items():
        if config.get(name, plain) != plain:
            raise CheckpointError(
                f"{path} has {name}={config[name]!r}, and only {plain!r} can be merged here. Merge "
                "it with PEFT (merge_and_unload) and save the whole model."
            )
    return Adapter(folder, backbone, alpha / (rank**0.5 if config.get("use_rslora") else rank))


@torch.no_grad()
def merge(adapter: Adapter, backbone: nn.Module) -> None:
    """Add the delta to the backbone's weights, in float32.

    Raises CheckpointError where a file is torn, or a tensor has no place or no partner.
    """
    path = adapter.folder / WEIGHTS
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}). Copy the adapter's file again."
        ) from error
    for name, (low, up) in _pairs(state, path).items():
        layer = _layer(backbone, name, path)
        weight = layer.weight
        delta = adapter.scale * (up.float() @ low.float())
        if delta.shape != weight.shape:
            raise CheckpointError(
                f"{path} has a delta of shape {list(delta.shape)} for {name}, whose weight has "
                f"{list(weight.shape)}. Use the backbone it was trained on: {adapter.backbone}."
            )
        weight.copy_((weight.float() + delta.to(weight.device)).to(weight.dtype))


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


def _layer(backbone: nn.Module, name: str, path: Path) -> nn.Linear:
    try:
        layer = backbone.get_submodule(name)
    except AttributeError:
        layer = None
    if not isinstance(layer, nn.Linear):
        raise CheckpointError(
            f"{path} has a delta for {name}, and the backbone has no linear layer of that name. "
            "Use the backbone it was trained on."
        )
    return layer
