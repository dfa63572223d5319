"""A trained SPLADE model on disk, in the layout of sentence-transformers' sparse encoders.

Where a table weighs the queries, a router leads them to it, and documents to the model.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from m3_retrievers.encoder.pretrained import quiet_transformers
from m3_retrievers.training.splade.model import SpladeModule

_MODULES = "sentence_transformers.sparse_encoder.modules"
_MODEL = f"{_MODULES}.mlm_transformer.MLMTransformer"
_POOLING = f"{_MODULES}.splade_pooling.SpladePooling"
_TABLE = f"{_MODULES}.sparse_static_embedding.SparseStaticEmbedding"
_ROUTER = "sentence_transformers.base.modules.router.Router"


def save_splade(module: SpladeModule, folder: Path) -> None:
    """Write the model, for SpladeEncoder and sentence-transformers to load."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    if module.table is None:
        steps = {"": _MODEL, "1_SpladePooling": _POOLING}
        _save_model(module, folder, folder / "1_SpladePooling")
    else:
        steps = {"": _ROUTER}
        _save_routes(module, folder, module.table)
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": kind}
        for at, (path, kind) in enumerate(steps.items())
    ]
    _write(folder / "modules.json", modules)


def _save_routes(module: SpladeModule, folder: Path, table: Tensor) -> None:
    query = "query_0_SparseStaticEmbedding"
    document = ["document_0_MLMTransformer", "document_1_SpladePooling"]
    _save_model(module, *(folder / name for name in document))
    (folder / query).mkdir(exist_ok=True)
    save_file({"weight": table.cpu().contiguous()}, folder / query / "model.safetensors")
    module.model.tokenizer.save_pretrained(folder / query)
    _write(folder / query / "config.json", {"frozen": True})
    router = {
        "types": {query: _TABLE, document[0]: _MODEL, document[1]: _POOLING},
        "structure": {"query": [query], "document": document},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
    _write(folder / "router_config.json", router)


def _save_model(module: SpladeModule, folder: Path, pooling: Path) -> None:
    body: Any = module.body
    decoder = module.decoder
    if hasattr(body, "merge_and_unload"):
        # in one go: the decoder may share the embeddings
        body, decoder = copy.deepcopy((body, decoder))
        body = body.merge_and_unload()
    body.set_output_embeddings(decoder)
    with quiet_transformers():
        body.save_pretrained(folder)
    module.model.tokenizer.save_pretrained(folder)
    config = {
        "pooling_strategy": module.model.pooling,
        "activation_function": module.model.activation,
        "embedding_dimension": module.model.vocabulary_size,
    }
    _write(pooling / "config.json", config)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
