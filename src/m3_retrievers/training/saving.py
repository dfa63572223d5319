"""A trained model on disk, in the layout of BAAI/bge-m3.

``folder`` holds the whole model: M3Encoder and FlagEmbedding load it alike. Where a
low-rank delta was trained, ``folder/adapter`` holds it alone, in PEFT's own format, beside
the heads: a few megabytes instead of the backbone. Of a model that is a delta itself, such
as m3-mini, only the whole is written: a delta on a delta loads nowhere.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from m3_retrievers.encoder.heads import COLBERT_FILE, SPARSE_FILE
from m3_retrievers.encoder.pretrained import quiet_transformers
from m3_retrievers.encoder.source import CONFIG_FILE, Source
from m3_retrievers.training.model import M3Module
from m3_retrievers.types.plan import HybridWeights

ADAPTER = "adapter"


def save_model(
    module: M3Module, folder: Path, *, source: Source, weights: HybridWeights | None = None
) -> None:
    """Write the whole model, and its delta apart where it has one.

    weights: the hybrid weights the model carries; those it started with by default.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backbone: Any = module.backbone
    if hasattr(backbone, "merge_and_unload"):
        if source.adapter is None:
            _save_adapter(module, folder / ADAPTER, source=source, weights=weights)
        backbone = copy.deepcopy(backbone).merge_and_unload()
    with quiet_transformers():
        backbone.save_pretrained(folder)
    module.checkpoint.tokenizer.save_pretrained(folder)
    for stem, state in _head_states(module).items():
        torch.save(state, folder / f"{stem}.pt")
    _save_config(module, folder, source=source, weights=weights)


def _save_adapter(
    module: M3Module, folder: Path, *, source: Source, weights: HybridWeights | None
) -> None:
    backbone: Any = module.backbone
    name = source.name
    if Path(name).is_dir():
        name = str(Path(name).resolve())  # a relative path would be another folder elsewhere
    backbone.peft_config["default"].base_model_name_or_path = name
    # a delta on linear layers has no embeddings; left to itself PEFT asks the hub about them
    backbone.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's template of a model card
    for stem, state in _head_states(module).items():
        save_file(state, folder / f"{stem}.safetensors")
    _save_config(module, folder, source=source, weights=weights)


def _head_states(module: M3Module) -> dict[str, dict[str, Tensor]]:
    heads = {SPARSE_FILE: module.heads.sparse_linear, COLBERT_FILE: module.heads.colbert_linear}
    return {
        stem: {name: one.detach().cpu().clone() for name, one in head.state_dict().items()}
        for stem, head in heads.items()
        if isinstance(head, nn.Linear)
    }


def _save_config(
    module: M3Module, folder: Path, *, source: Source, weights: HybridWeights | None
) -> None:
    heads = _head_states(module)
    config: dict[str, Any] = {
        "pooling": source.pooling,
        "heads": {"sparse": SPARSE_FILE in heads, "colbert": COLBERT_FILE in heads},
        "weights": asdict(weights or source.weights),
        "max_length": module.checkpoint.max_length,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
