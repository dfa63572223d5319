"""Random checkpoints in the hub's file formats, written at test time and equal everywhere.

``write_tiny_m3`` writes what the folder of BAAI/bge-m3 holds (config, tokenizer, backbone,
``sparse_linear.pt``, ``colbert_linear.pt``, pooling), except ``sentencepiece.bpe.model``,
which tokenizer.json makes superfluous. Numbers come from numpy's PCG64, the vocabulary from
counting, so nothing depends on a version of torch or of a tokenizer trainer.

The scales are chosen for tests that can fail: attention is far from uniform, so a wrong mask
or position shows; about half of the lexical weights are positive; similarities of token
vectors take both signs. Head weights are exact in float16, so every format holds one model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tokenizer_files import write_word_piece, write_xlm_roberta_tokenizer

Weights: TypeAlias = dict[str, NDArray[np.floating[Any]]]
Format: TypeAlias = Literal["safetensors", "bin"]
HeadFormat: TypeAlias = Literal["pt", "safetensors"]

_SPARSE_BIAS = 0.7  # with it about half of the tiny checkpoint's lexical weights are positive


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a backbone; the defaults are tiny, the positions BGE-M3's own."""

    hidden: int = 32
    layers: int = 2
    attention_heads: int = 4
    feed_forward: int = 64
    positions: int = 8194
    token_types: int = 1


def write_tiny_m3(
    folder: Path,
    *,
    hidden: int = 32,
    colbert_dim: int | None = None,
    layers: int = 2,
    weights_format: Format = "safetensors",
    heads_format: HeadFormat = "pt",
    heads_dtype: Literal["float32", "float16"] = "float32",
    seed: int = 0,
) -> Path:
    """Write an XLM-RoBERTa with both heads and its own tokenizer; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary_size = write_xlm_roberta_tokenizer(folder)
    write_m3(
        folder,
        Shape(hidden=hidden, layers=layers),
        vocabulary_size=vocabulary_size,
        colbert_dim=colbert_dim,
        weights_format=weights_format,
        heads_format=heads_format,
        heads_dtype=heads_dtype,
        seed=seed,
    )
    return folder


def write_m3(
    folder: Path,
    shape: Shape,
    *,
    vocabulary_size: int,
    colbert_dim: int | None = None,
    weights_format: Format = "safetensors",
    heads_format: HeadFormat = "pt",
    heads_dtype: Literal["float32", "float16"] = "float32",
    seed: int = 0,
) -> None:
    """Write everything of an M3 checkpoint but its tokenizer."""
    rng = np.random.Generator(np.random.PCG64(seed))
    config = {
        "architectures": ["XLMRobertaModel"],
        "model_type": "xlm-roberta",
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "layer_norm_eps": 1e-05,
        **_sizes(shape, vocabulary_size),
    }
    _write_json(folder / "config.json", config)
    _write_weights(folder, backbone(rng, shape, vocabulary_size), weights_format)
    write_heads(
        folder,
        rng,
        hidden=shape.hidden,
        colbert_dim=colbert_dim,
        form=heads_format,
        dtype=heads_dtype,
    )
    _write_sentence_transformers_files(folder, shape.hidden, pooling="cls", length=8192)


def write_tiny_bert(
    folder: Path, *, hidden: int = 32, layers: int = 2, heads: bool = False, seed: int = 1
) -> Path:
    """Write a BERT with WordPiece and mean pooling, as MiniLM is; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.Generator(np.random.PCG64(seed))
    shape = Shape(hidden=hidden, layers=layers, positions=512, token_types=2)
    vocabulary_size = write_word_piece(folder)
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "pad_token_id": 0,
        "layer_norm_eps": 1e-12,
        **_sizes(shape, vocabulary_size),
    }
    _write_json(folder / "config.json", config)
    _write_weights(folder, backbone(rng, shape, vocabulary_size), "safetensors")
    if heads:
        write_heads(folder, rng, hidden=hidden)
    _write_sentence_transformers_files(folder, hidden, pooling="mean", length=256)
    return folder


def backbone(rng: np.random.Generator, shape: Shape, vocabulary_size: int) -> Weights:
    """Return random tensors under the names that BertModel and XLMRobertaModel share."""
    h, f = shape.hidden, shape.feed_forward

    def normal(*size: int, scale: float) -> NDArray[np.float32]:
        return rng.standard_normal(size, np.float32) * np.float32(scale)

    weights: Weights = {}

    def linear(name: str, rows: int, columns: int, *, gain: float = 1.0) -> None:
        weights[f"{name}.weight"] = normal(rows, columns, scale=gain / columns**0.5)
        weights[f"{name}.bias"] = normal(rows, scale=0.1)

    def layer_norm(name: str) -> None:
        weights[f"{name}.weight"] = 1 + normal(h, scale=0.1)
        weights[f"{name}.bias"] = normal(h, scale=0.1)

    weights["embeddings.word_embeddings.weight"] = normal(vocabulary_size, h, scale=1.0)
    weights["embeddings.position_embeddings.weight"] = normal(shape.positions, h, scale=0.3)
    weights["embeddings.token_type_embeddings.weight"] = normal(shape.token_types, h, scale=0.3)
    layer_norm("embeddings.LayerNorm")
    for layer in (f"encoder.layer.{n}" for n in range(shape.layers)):
        linear(f"{layer}.attention.self.query", h, h, gain=1.5)
        linear(f"{layer}.attention.self.key", h, h, gain=1.5)
        linear(f"{layer}.attention.self.value", h, h)
        linear(f"{layer}.attention.output.dense", h, h)
        layer_norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", f, h)
        linear(f"{layer}.output.dense", h, f)
        layer_norm(f"{layer}.output.LayerNorm")
    linear("pooler.dense", h, h)
    return weights


def write_heads(
    folder: Path,
    rng: np.random.Generator,
    *,
    hidden: int,
    colbert_dim: int | None = None,
    form: HeadFormat = "pt",
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Write ``sparse_linear`` and ``colbert_linear``: state dicts {weight, bias}."""
    heads = {"sparse_linear": (1, _SPARSE_BIAS), "colbert_linear": (colbert_dim or hidden, 0.0)}
    for name, (rows, bias) in heads.items():
        head = {
            "weight": rng.standard_normal((rows, hidden), np.float32) / hidden**0.5,
            "bias": rng.standard_normal(rows, np.float32) * 0.05 + bias,
        }
        exact = {key: value.astype(np.float16).astype(dtype) for key, value in head.items()}
        if form == "pt":
            torch.save(_tensors(exact), folder / f"{name}.pt")
        else:
            save_file(exact, folder / f"{name}.safetensors")


def digest(folder: Path) -> str:
    """Return the SHA-256 of tokenizer, backbone and heads as numbers, whatever their format."""
    sha = hashlib.sha256()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    sha.update(json.dumps(tokenizer, sort_keys=True).encode())
    for stem in ("model", "sparse_linear", "colbert_linear"):
        for name, value in sorted(_read(folder, stem).items()):
            sha.update(name.encode())
            sha.update(np.ascontiguousarray(value, np.float32).tobytes())
    return sha.hexdigest()


def _read(folder: Path, stem: str) -> Weights:
    if (folder / f"{stem}.safetensors").exists():
        return load_file(folder / f"{stem}.safetensors")
    path = folder / ("pytorch_model.bin" if stem == "model" else f"{stem}.pt")
    return {name: value.numpy() for name, value in torch.load(path, weights_only=True).items()}


def _tensors(weights: Weights) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in weights.items()}


def _write_weights(folder: Path, weights: Weights, form: Format) -> None:
    if form == "bin":
        torch.save(_tensors(weights), folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _sizes(shape: Shape, vocabulary_size: int) -> dict[str, Any]:
    return {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.attention_heads,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.token_types,
        "vocab_size": vocabulary_size,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
    }


def _write_sentence_transformers_files(
    folder: Path, hidden: int, *, pooling: Literal["cls", "mean"], length: int
) -> None:
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    _write_json(
        folder / "modules.json",
        [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (path, kind) in enumerate(modules)
        ],
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling_config = {
        "word_embedding_dimension": hidden,
        "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    _write_json(folder / "1_Pooling" / "config.json", pooling_config)
    limits = {"max_seq_length": length, "do_lower_case": False}
    _write_json(folder / "sentence_bert_config.json", limits)


def _write_json(path: Path, value: dict[str, Any] | Sequence[Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False))
