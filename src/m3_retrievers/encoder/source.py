"""Model folders: found, read without loading them, and identified by a fingerprint.

A folder is laid out as on the hub's BAAI/bge-m3: the backbone's Hugging Face files plus
``sparse_linear.pt`` and ``colbert_linear.pt``. A file ``m3_retrievers.json`` may state
what differs from BGE-M3: ``{"pooling", "heads", "weights", "max_length"}``. A folder may
also hold a low-rank delta instead of a backbone (see adapter.py): its configuration names
the backbone it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from m3_retrievers.encoder.adapter import Adapter, find_adapter
from m3_retrievers.encoder.checksums import sha256
from m3_retrievers.encoder.files import is_there, read_json
from m3_retrievers.encoder.heads import COLBERT_FILE, SPARSE_FILE, HeadSpec, head_file
from m3_retrievers.encoder.mini import (
    CHARACTER_MAP,
    Bundled,
    bundled,
    locate_ours,
    locate_weights,
)
from m3_retrievers.errors import CheckpointError, InputError
from m3_retrievers.types.plan import HybridWeights

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
    folder, but where there is an adapter: a delta that is added to the backbone). packed: the one
    file of a backbone that is no Hugging Face folder (``encoder.e5``).
    """

    name: str
    folder: Path
    heads_folder: Path
    heads: HeadSpec
    pooling: Pooling
    weights: HybridWeights
    max_length: int | None
    adapter: Adapter | None = None
    packed: Path | None = None


def locate(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    heads: HeadSpec | None = None,
    pooling: Pooling | None = None,
) -> Source:
    """Return where a model lies: a bundled one, a folder, or a hub id (downloaded or cached).

    Bundled are ``"m3-mini"`` and ``"m3-mini-multilingual"``. ``"m3-mini/backbone"`` is m3-mini
    before it was trained: no sparse head, and the hidden states as ColBERT vectors.

    Arguments that are not None win over what the model's files say. Raises CheckpointError
    (or MissingHeadError) if something needed is not there.
    """
    _check_arguments(name_or_path, revision, heads, pooling)
    name = str(name_or_path)
    heads_folder = _find(name, revision)
    adapter = find_adapter(heads_folder)
    folder = heads_folder if adapter is None else _backbone_of(adapter)
    plain = bundled(name)
    packed = folder if folder.is_file() else None
    if packed is None and not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} is expected to hold a Hugging Face model, and has no config.json. "
            "Pass a model folder, a hub id such as 'BAAI/bge-m3', or 'm3-mini'."
        )
    if plain is not None and name == plain.backbone:
        source = _untrained(plain, folder)
        source = replace(source, pooling=pooling or source.pooling)
    else:
        source = _configured(name, folder, heads_folder, pooling)
    source = replace(source, adapter=adapter, heads=heads or source.heads, packed=packed)
    _head_files(source)
    return source


def fingerprint(source: Source, settings: dict[str, Any]) -> str:
    """Return a SHA-256 over weights, heads, tokenizer, config and vector-shaping settings.

    Every byte of the weights counts; see ``checksums`` for how often they are read.
    """
    digest = hashlib.sha256()
    shape = {"pooling": source.pooling, **settings}
    if source.adapter is not None:
        shape["adapter_scale"] = source.adapter.scale
    config = "{}" if source.packed else stable_config(source.folder)
    digest.update(f"[{config}, {json.dumps(shape, sort_keys=True)}]".encode())
    if source.packed:
        files = [CHARACTER_MAP, source.packed, *_head_files(source)]
    else:
        files = [tokenizer_file(source.folder), *weight_files(source.folder), *_head_files(source)]
    files += [] if source.adapter is None else source.adapter.files
    for path in files:
        digest.update(f"{path.name}:{sha256(path)}".encode())
    return digest.hexdigest()


def stable_config(folder: Path) -> str:
    """Return a model's configuration as text, without what changes when it is saved again."""
    config = read_json(folder / "config.json")
    stable = {key: value for key, value in config.items() if key not in _VOLATILE}
    return json.dumps(stable, sort_keys=True)


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
    patterns = ("model*.safetensors", "pytorch_model*.bin")
    files = ([one for one in sorted(folder.glob(p)) if one.is_file()] for p in patterns)
    found = next(filter(None, files), [])
    if not found:
        raise CheckpointError(
            f"{folder} is expected to hold model.safetensors or pytorch_model.bin, and has "
            "neither. Copy the model's weights there."
        )
    return found


def _find(name: str, revision: str | None) -> Path:
    """Return the folder that a name stands for, or the one file of a packed backbone."""
    model = bundled(name)
    if model is None:
        return _folder(name, revision)
    if name == model.name:
        return locate_ours(model)
    weights = locate_weights(model)
    return weights.parent if (weights.parent / "config.json").is_file() else weights


def _backbone_of(adapter: Adapter) -> Path:
    folder = _find(adapter.backbone, adapter.revision)
    if find_adapter(folder) is not None:
        raise CheckpointError(
            f"{adapter.folder} is a delta on {adapter.backbone!r}, which is a delta itself, and "
            "only one can be added. Train on the whole model, or on its backbone."
        )
    return folder


def _untrained(model: Bundled, folder: Path) -> Source:
    return Source(
        name=model.backbone,
        folder=folder,
        heads_folder=folder,
        heads=HeadSpec(sparse=False, colbert="identity"),
        pooling="mean",
        weights=model.weights,
        max_length=512,
    )


def find_folder(name_or_path: str | Path, revision: str | None) -> Path:
    """Return a model's folder: the one given, or the hub's, downloaded or cached."""
    _check_arguments(name_or_path, revision, None, None)
    return _folder(str(name_or_path), revision)


def _folder(name: str, revision: str | None) -> Path:
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            return path
        from huggingface_hub import snapshot_download  # takes 0.3 s, of which a folder needs none

        return Path(snapshot_download(name, revision=revision, ignore_patterns=_NOT_NEEDED))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{name!r} is no folder here, and could not be had from the hub ({reason}). Check the "
            "name and the connection, pass a folder, or use 'm3-mini', which needs no download."
        ) from error


def _check_arguments(
    name_or_path: object, revision: object, heads: object, pooling: object
) -> None:
    if not isinstance(name_or_path, str | Path) or not str(name_or_path).strip():
        raise InputError(
            f"expected a model's name or folder, got {name_or_path!r:.60}. Pass 'm3-mini', "
            "'BAAI/bge-m3', another hub id, or a folder."
        )
    if revision is not None and not isinstance(revision, str):
        raise InputError(f"revision expects a branch, tag or commit, got {revision!r:.60}.")
    if heads is not None and not isinstance(heads, HeadSpec):
        raise InputError(
            f"heads expects a HeadSpec, got {heads!r:.60}. Write HeadSpec(sparse=…, colbert=…)."
        )
    if pooling not in (None, "cls", "mean"):
        raise InputError(f"pooling expects 'cls' or 'mean', got {pooling!r:.60}.")


def _configured(name: str, folder: Path, heads_folder: Path, pooling: Pooling | None) -> Source:
    path = heads_folder / CONFIG_FILE
    config = read_json(path) if is_there(path) else {}
    unknown = set(config) - {"pooling", "heads", "weights", "max_length"}
    if unknown:
        raise CheckpointError(
            f"{path} has unknown keys {sorted(unknown)}; known are pooling, heads, weights, "
            "max_length. Remove them or update this package."
        )
    stated = config.get("pooling")
    if stated not in (None, "cls", "mean"):
        raise CheckpointError(
            f"{path} expects pooling to be 'cls' or 'mean', got {stated!r:.60}. Correct the file."
        )
    length = config.get("max_length")
    if length is not None and (type(length) is not int or not 3 <= length < 2**31):
        raise CheckpointError(
            f"{path} expects max_length to be an integer of at least 3, got {length!r:.60}. "
            "Correct the file, or leave it out."
        )
    try:
        heads = HeadSpec(**config.get("heads", {}))
        weights = HybridWeights(**config.get("weights", {}))
    except (TypeError, InputError) as error:
        raise CheckpointError(f"{path} cannot be used ({error}). Correct the file.") from error
    return Source(
        name=name,
        folder=folder,
        heads_folder=heads_folder,
        heads=heads,
        pooling=pooling or stated or _pooling(folder),
        weights=weights,
        max_length=length,
    )


def _pooling(folder: Path) -> Pooling:
    """sentence-transformers writes the pooling beside the model; BGE-M3's is CLS.

    Its older versions write a flag a mode, newer ones ``pooling_mode``.
    """
    path = folder / "1_Pooling" / "config.json"
    if not is_there(path):
        return "cls"
    config = read_json(path)
    flags = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    modes = config.get("pooling_mode")
    if modes is None:
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        modes = [flags.get(key, key) for key in on]
    if modes in ("cls", ["cls"]):
        return "cls"
    if modes in ("mean", ["mean"]):
        return "mean"
    raise CheckpointError(
        f"{path} asks for the pooling {modes!r:.80}, expected CLS or mean. Use another model, or "
        "pass pooling='cls' or pooling='mean' if that is how this one was trained."
    )


def _head_files(source: Source) -> list[Path]:
    stems = [SPARSE_FILE] if source.heads.sparse else []
    stems += [COLBERT_FILE] if source.heads.colbert is True else []
    return [head_file(source.heads_folder, stem) for stem in stems]
