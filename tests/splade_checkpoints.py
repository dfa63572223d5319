"""Random masked-language models in the layouts that SPLADE models come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForMaskedLM

from checkpoints import write_tiny_bert, write_tiny_m3

_NAMES = "sentence_transformers.sparse_encoder.modules"


def write_tiny_splade(folder: Path, *, kind: str = "bert", seed: int = 0) -> Path:
    """Write a masked-language model with its tokenizer, about half of its weights positive."""
    (write_tiny_bert if kind == "bert" else write_tiny_m3)(folder)
    kept = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    for path in [one for one in folder.rglob("*") if one.is_file() and one.name not in kept]:
        path.unlink()
    config = AutoConfig.from_pretrained(folder)
    torch.manual_seed(seed)
    model = AutoModelForMaskedLM.from_config(config)
    for name, value in model.named_parameters():
        if value.ndim > 1 or name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.3)  # logits far from 0, of both signs
    model.save_pretrained(folder)
    return folder


def as_sentence_transformers(folder: Path, *, pooling: str, activation: str) -> None:
    """Add the files by which sentence-transformers reads a sparse encoder."""
    steps = [
        ("", "mlm_transformer.MLMTransformer"),
        ("1_SpladePooling", "splade_pooling.SpladePooling"),
    ]
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"{_NAMES}.{kind}"}
        for at, (path, kind) in enumerate(steps)
    ]
    _write(folder / "modules.json", modules)
    _write(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    settings = {"pooling_strategy": pooling, "activation_function": activation}
    _write(folder / "1_SpladePooling" / "config.json", settings | {"embedding_dimension": None})


def write_router(folder: Path, *, seed: int = 1) -> torch.Tensor:
    """Write a model whose queries are weighed by a table; returns the table (v,)."""
    document = write_tiny_splade(folder / "document_0_MLMTransformer", seed=seed)
    query = folder / "query_0_SparseStaticEmbedding"
    query.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (query / name).write_bytes((document / name).read_bytes())
    size = AutoConfig.from_pretrained(document).vocab_size
    table = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    save_file({"weight": table}, query / "model.safetensors")
    _write(query / "config.json", {"frozen": False})
    _write(
        folder / "document_1_SpladePooling" / "config.json",
        {"pooling_strategy": "max", "activation_function": "relu", "embedding_dimension": None},
    )
    types = {
        "query_0_SparseStaticEmbedding": f"{_NAMES}.sparse_static_embedding.SparseStaticEmbedding",
        "document_0_MLMTransformer": f"{_NAMES}.mlm_transformer.MLMTransformer",
        "document_1_SpladePooling": f"{_NAMES}.splade_pooling.SpladePooling",
    }
    router: dict[str, Any] = {
        "types": types,
        "structure": {"query": list(types)[:1], "document": list(types)[1:]},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
    _write(folder / "router_config.json", router)
    _write(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    kind = "sentence_transformers.base.modules.router.Router"
    _write(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])
    return table


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")
