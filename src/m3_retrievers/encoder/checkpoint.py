"""Model folders: found, checked, loaded, and identified by a fingerprint.

A folder is laid out as on the hub's BAAI/bge-m3: the backbone's Hugging Face files plus
``sparse_linear.pt`` and ``colbert_linear.pt``. A file ``m3_retrievers.json`` may state
what differs from BGE-M3: ``{"pooling", "heads", "weights", "max_length"}``. A folder may
also hold a low-rank delta instead of a backbone (see adapter.py): its configuration names
the backbone it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from m3_retrievers.encoder.adapter import Adapter, find_adapter, merge
from m3_retrievers.encoder.heads import (
    COLBERT_FILE,
    SPARSE_FILE,
    Heads,
    HeadSpec,
    head_file,
    load_heads,
)
from m3_retrievers.encoder.mini import BACKBONE, MINI, locate_backbone, locate_mini
from m3_retrievers.encoder.pieces import Frame, find_frame
from m3_retrievers.errors import CheckpointError, InputError
from m3_retrievers.representations import HybridWeights

Pooling: TypeAlias = Literal["cls", "mean"]
CONFIG_FILE = "m3_retrievers.json"

# Other frameworks' weights on the hub, never read here.
_NOT_NEEDED = ["flax_model.msgpack", "rust_model.ot", "tf_model.h5", "*.onnx", "onnx/*", "imgs/*"]
# These change when a file is merely saved again.
_VOLATILE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")
_TOKENIZER_FILES = ("tokenizer.json", "sentencepiece.bpe.model", "vocab.txt")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model lies and how it is to be read, before anything heavy is loaded.

    folder holds the backbone; heads_folder the heads and ``m3_retrievers.json`` (the same
    folder, but where there is an adapter: a delta that is added to the backbone).
    """

    name: str
    folder: Path
    heads_folder: Path
    heads: HeadSpec
    pooling: Pooling
    weights: HybridWeights
    max_length: int | None
    adapter: Adapter | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A loaded model: backbone and heads on their device, tokenizer, and its constants.

    max_length: tokens a sequence may have, frame included. dropped_ids: vocabulary ids that
    never carry a term weight (CLS, EOS/SEP, padding, unknown).
    """

    backbone: nn.Module
    heads: Heads
    tokenizer: Any
    frame: Frame
    pooling: Pooling
    max_length: int
    dropped_ids: tuple[int, ...]
    pad_id: int
    vocabulary_size: int


def locate(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    heads: HeadSpec | None = None,
    pooling: Pooling | None = None,
) -> Source:
    """Return where a model lies: ``"m3-mini"``, a folder, or a hub id (downloaded or cached).

    ``"m3-mini/backbone"`` is m3-mini before it was trained: no sparse head, and the hidden
    states as ColBERT vectors.

    Arguments that are not None win over what the model's files say. Raises CheckpointError
    (or MissingHeadError) if something needed is not there.
    """
    name = str(name_or_path)
    heads_folder = _find(name, revision)
    adapter = find_adapter(heads_folder)
    folder = heads_folder if adapter is None else _backbone_of(adapter)
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} is expected to hold a Hugging Face model, and has no config.json. "
            "Pass a model folder, a hub id such as 'BAAI/bge-m3', or 'm3-mini'."
        )
    source = _plain_mini(folder) if name == BACKBONE else _configured(name, folder, heads_folder)
    source = replace(
        source,
        adapter=adapter,
        heads=heads or source.heads,
        pooling=pooling or source.pooling,
    )
    if source.pooling not in ("cls", "mean"):
        raise InputError(f"pooling expects 'cls' or 'mean', got {source.pooling!r}.")
    _head_files(source)
    return source


def load(source: Source, *, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """Return the model in memory. Raises CheckpointError where a file is torn or incomplete."""
    backbone = _backbone(source.folder, dtype if source.adapter is None else torch.float32)
    if source.adapter is not None:
        merge(source.adapter, backbone)
        backbone.to(dtype)
    config = backbone.config
    heads = load_heads(source.heads_folder, source.heads, hidden_size=config.hidden_size)
    tokenizer_file(source.folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source.folder} holds no tokenizer that can be read ({error}). "
            "Add its tokenizer.json."
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"{source.folder} is expected to hold a tokenizer.json (a fast tokenizer), and does "
            "not. Save one there with AutoTokenizer.from_pretrained(…).save_pretrained(…)."
        )
    # a tokenizer.json may ask for padding or a cut of its own; lengths are decided in pieces.py
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    special = ("cls_token_id", "eos_token_id", "sep_token_id", "pad_token_id", "unk_token_id")
    ids = {getattr(tokenizer, name, None) for name in special}
    limit = _positions(config)
    return Checkpoint(
        backbone=backbone.to(device),
        heads=heads.to(device),
        tokenizer=tokenizer,
        frame=find_frame(tokenizer),
        pooling=source.pooling,
        max_length=min(limit, source.max_length or limit),
        dropped_ids=tuple(sorted(one for one in ids if one is not None)),
        pad_id=tokenizer.pad_token_id,
        vocabulary_size=config.vocab_size,
    )


def fingerprint(source: Source, settings: dict[str, Any]) -> str:
    """Return a SHA-256 over weights, heads, tokenizer, config and vector-shaping settings.

    Every byte of the weights counts; at 2.3 GB this takes about two seconds.
    """
    digest = hashlib.sha256()
    config = json.loads((source.folder / "config.json").read_text("utf-8"))
    stable = {key: value for key, value in config.items() if key not in _VOLATILE}
    shape = {"pooling": source.pooling, **settings}
    if source.adapter is not None:
        shape["adapter_scale"] = source.adapter.scale
    digest.update(json.dumps([stable, shape], sort_keys=True).encode())
    files = [tokenizer_file(source.folder), *weight_files(source.folder), *_head_files(source)]
    files += [] if source.adapter is None else source.adapter.files
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()


def tokenizer_file(folder: Path) -> Path:
    """Return the file the vocabulary is read from.

    transformers would make up an empty vocabulary where there is none.
    """
    for name in _TOKENIZER_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder} is expected to hold a tokenizer ({', '.join(_TOKENIZER_FILES)}), and has none. "
        "Copy the model's tokenizer there."
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the files the backbone is read from, in name order."""
    found = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not found:
        raise CheckpointError(
            f"{folder} is expected to hold model.safetensors or pytorch_model.bin, and has "
            "neither. Copy the model's weights there."
        )
    return found


def _find(name: str, revision: str | None) -> Path:
    """Return the folder that a name stands for."""
    if name == MINI:
        return locate_mini()
    return locate_backbone() if name == BACKBONE else _folder(name, revision)


def _backbone_of(adapter: Adapter) -> Path:
    folder = _find(adapter.backbone, adapter.revision)
    if find_adapter(folder) is not None:
        raise CheckpointError(
            f"{adapter.folder} is a delta on {adapter.backbone!r}, which is a delta itself, and "
            "only one can be added. Train on the whole model, or on its backbone."
        )
    return folder


def _plain_mini(folder: Path) -> Source:
    return Source(
        name=BACKBONE,
        folder=folder,
        heads_folder=folder,
        heads=HeadSpec(sparse=False, colbert="identity"),
        pooling="mean",
        # ColBERT is the strongest of its modes (benchmarks/README.md)
        weights=HybridWeights(dense=0.25, sparse=0.3, colbert=1.0),
        max_length=512,
    )


def _folder(name: str, revision: str | None) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    try:
        return Path(snapshot_download(name, revision=revision, ignore_patterns=_NOT_NEEDED))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{name!r} is no folder here, and could not be had from the hub ({reason}). Check the "
            "name and the connection, pass a folder, or use 'm3-mini', which needs no download."
        ) from error


def _configured(name: str, folder: Path, heads_folder: Path) -> Source:
    path = heads_folder / CONFIG_FILE
    config = _json(path) if path.is_file() else {}
    unknown = set(config) - {"pooling", "heads", "weights", "max_length"}
    if unknown:
        raise CheckpointError(
            f"{path} has unknown keys {sorted(unknown)}; known are pooling, heads, weights, "
            "max_length. Remove them or update this package."
        )
    return Source(
        name=name,
        folder=folder,
        heads_folder=heads_folder,
        heads=HeadSpec(**config.get("heads", {})),
        pooling=config.get("pooling", _pooling(folder)),
        weights=HybridWeights(**config.get("weights", {})),
        max_length=config.get("max_length"),
    )


def _pooling(folder: Path) -> Pooling:
    """sentence-transformers writes the pooling beside the model; BGE-M3's is CLS."""
    path = folder / "1_Pooling" / "config.json"
    mean = path.is_file() and _json(path).get("pooling_mode_mean_tokens", False)
    return "mean" if mean else "cls"


def _head_files(source: Source) -> list[Path]:
    stems = [SPARSE_FILE] if source.heads.sparse else []
    stems += [COLBERT_FILE] if source.heads.colbert is True else []
    return [head_file(source.heads_folder, stem) for stem in stems]


def _backbone(folder: Path, dtype: torch.dtype) -> Any:
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            _check_safetensors(path)
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            model, report = AutoModel.from_pretrained(
                folder, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be loaded as a backbone: {error}") from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the backbone's tensors ({', '.join(missing[:3])}…): "
            "they would be random. Use a complete checkpoint of this architecture."
        )
    return model.eval()


def _check_safetensors(path: Path) -> None:
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is torn or no safetensors file ({error}). Copy or download it again."
        ) from error


def _positions(config: Any) -> int:
    """Return how many tokens fit; RoBERTa's family counts positions from padding + 1."""
    reserved = config.pad_token_id + 1 if "roberta" in config.model_type else 0
    return int(config.max_position_embeddings) - reserved


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is expected to hold JSON: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is expected to hold a JSON object, got {content!r:.60}.")
    return content


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hold transformers' own bar and load report back; what matters is checked and raised."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
