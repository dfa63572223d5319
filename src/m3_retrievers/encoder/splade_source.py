"""SPLADE models as folders: where the parts lie, and how they are to be read.

Three layouts are known: a masked-language model alone; sentence-transformers' sparse encoders
(``modules.json``, with a router where queries and documents go different ways); and OpenSearch's
models with a table of query weights (``idf.json``, {token: weight}).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from m3_retrievers.encoder.checksums import sha256
from m3_retrievers.encoder.files import is_there, read_json
from m3_retrievers.encoder.source import stable_config, tokenizer_file, weight_files
from m3_retrievers.errors import CheckpointError, InputError

SpladePooling: TypeAlias = Literal["max", "sum"]
SpladeActivation: TypeAlias = Literal["relu", "log1p_relu"]
POOLINGS: tuple[SpladePooling, ...] = ("max", "sum")
ACTIVATIONS: tuple[SpladeActivation, ...] = ("relu", "log1p_relu")

_TABLE = "idf.json"


@dataclass(frozen=True, slots=True)
class SpladeSource:
    """One side of a SPLADE model, queries or documents.

    folder: of the masked-language model, None for a side that needs none; tokenizer_folder: of
    its tokenizer. pooling, activation: None where the files do not say. table: what weighs a
    text's own tokens where there is no model: a file of weights, ``"ones"``, or None.
    """

    folder: Path | None
    tokenizer_folder: Path
    pooling: SpladePooling | None = None
    activation: SpladeActivation | None = None
    table: Path | Literal["ones"] | None = None


def read_layout(folder: Path) -> tuple[SpladeSource, SpladeSource]:
    """Return how a folder reads queries and documents; CheckpointError for an unknown layout."""
    modules = folder / "modules.json"
    if is_there(modules):
        return _sentence_transformers(folder, _read_list(modules))
    model = SpladeSource(folder, folder)
    if is_there(folder / _TABLE):
        return SpladeSource(None, folder, table=folder / _TABLE), model
    return model, model


def find_table(query_weights: str | Path) -> Path | Literal["ones"]:
    """Return the table that a caller names; InputError for what is no file."""
    if query_weights == "ones":
        return "ones"
    if not isinstance(query_weights, str | Path) or not Path(query_weights).is_file():
        raise InputError(
            f"query_weights expects 'ones' or a JSON file {{token: weight}}, got "
            f"{query_weights!r:.60}. Leave it out to use the model's own."
        )
    return Path(query_weights)


def fingerprint_of(source: SpladeSource, shape: Sequence[Any]) -> str:
    """Return a SHA-256 over weights, table, tokenizer, config and what shapes the terms."""
    digest = hashlib.sha256(json.dumps(list(shape)).encode())
    files = [tokenizer_file(source.tokenizer_folder)]
    if source.folder is not None:
        digest.update(stable_config(source.folder).encode())
        files += weight_files(source.folder)
    if isinstance(source.table, Path):
        files.append(source.table)
    for path in files:
        digest.update(f"{path.name}:{sha256(path)}".encode())
    return digest.hexdigest()


def _sentence_transformers(
    folder: Path, modules: list[Mapping[str, Any]]
) -> tuple[SpladeSource, SpladeSource]:
    first = modules[0]
    if _kind(first) == "Router":
        router = read_json(_inside(folder, first) / "router_config.json")
        queries = _chain(folder, router, "query")
        return queries, _chain(folder, router, "document")
    steps = [(_kind(step), _inside(folder, step)) for step in modules]
    side = _side(folder, steps)
    return side, side


def _chain(folder: Path, router: Mapping[str, Any], role: str) -> SpladeSource:
    try:
        names = router["structure"][role]
        steps = [(str(router["types"][name]).rpartition(".")[2], folder / name) for name in names]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}/router_config.json expects a route for {role!r}, and has none. "
            "Save the model again with sentence-transformers."
        ) from error
    return _side(folder, steps)


def _side(folder: Path, steps: list[tuple[str, Path]]) -> SpladeSource:
    kinds = [kind for kind, _ in steps]
    if kinds == ["SparseStaticEmbedding"]:
        return SpladeSource(None, steps[0][1], table=steps[0][1] / "model.safetensors")
    if len(kinds) == 2 and kinds[0] in ("MLMTransformer", "Transformer"):
        if kinds[1] != "SpladePooling":
            raise _unknown(folder, kinds)
        config = read_json(steps[1][1] / "config.json")
        pooling, activation = config.get("pooling_strategy"), config.get("activation_function")
        if pooling not in (*POOLINGS, None) or activation not in (*ACTIVATIONS, None):
            raise CheckpointError(
                f"{steps[1][1]}/config.json asks for {pooling!r:.40} and {activation!r:.40}, "
                f"expected one of {POOLINGS} and of {ACTIVATIONS}. Use another model."
            )
        return SpladeSource(steps[0][1], steps[0][1], pooling, activation)
    raise _unknown(folder, kinds)


def _unknown(folder: Path, kinds: list[str]) -> CheckpointError:
    return CheckpointError(
        f"{folder} is a chain of {kinds}, expected a masked-language model and SpladePooling, or "
        "a table of token weights. Use a SPLADE model."
    )


def _kind(step: Mapping[str, Any]) -> str:
    return str(step.get("type", "")).rpartition(".")[2]


def _inside(folder: Path, step: Mapping[str, Any]) -> Path:
    path = folder / str(step.get("path", ""))
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"{folder}/modules.json names {path}, which lies outside of it.")
    return path


def _read_list(path: Path) -> list[Mapping[str, Any]]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is expected to hold JSON and cannot be read as that ({error}). "
            "Copy or write it again."
        ) from error
    if (
        not isinstance(content, list)
        or not content
        or not all(isinstance(s, dict) for s in content)
    ):
        raise CheckpointError(f"{path} expects a list of modules, got {content!r:.60}.")
    return list(content)


def check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    """Raise InputError unless an option is None or one of those known."""
    if value is not None and value not in known:
        raise InputError(f"{name} expects one of {known} or None, got {value!r:.60}.")
