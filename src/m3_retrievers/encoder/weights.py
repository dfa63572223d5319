"""A backbone's tensors, mapped from the files of a known encoder, without its module.

transformers' loading brings in a compiler, symbolic algebra and a second of time. The names of
BERT and XLM-RoBERTa are settled, so their files are read directly; whatever looks unfamiliar is
left to ``pretrained``, which knows more layouts and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m3_retrievers.encoder.adapter import Adapter, merge
from m3_retrievers.encoder.files import check_safetensors, map_tensors, read_json
from m3_retrievers.encoder.source import weight_files
from m3_retrievers.encoder.transformer import TABLES, Shape, read_shape
from m3_retrievers.errors import CheckpointError

# Keys by which a config.json would have transformers read or run something else.
_REFUSED = {
    "quantization_config": "a quantized backbone",
    "transformers_weights": "a file of weights by another name",
}
_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "vocab_size",
)
_MOST_LAYERS = 200
_LARGEST = 2**31 - 1
# What a model with a head of its own puts before the names of its backbone.
_PREFIXES = ("", "bert.", "roberta.")


def read_backbone(folder: Path, dtype: torch.dtype) -> tuple[Shape, dict[str, Tensor]] | None:
    """Return sizes and tensors of a folder's backbone; None where it is no plain known encoder.

    The tensors are mapped, and the tables of embeddings apart from the rest: when the layers'
    weights are packed and given up, nothing holds their part of the file in memory.

    Raises CheckpointError for a torn file, and for numbers that are not finite in ``dtype``.
    """
    files = weight_files(folder)
    for path in files:
        if path.suffix == ".safetensors":
            check_safetensors(path)
    shape = read_shape(read_config(folder))
    if shape is None:
        return None
    state = _mapped(files, shape)
    if state is None:
        return None
    check_finite(folder, state, dtype)
    tables = _mapped(files, shape)
    assert tables is not None
    return shape, state | {name: tables[name] for name in TABLES}


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of config.json; CheckpointError where it asks for other files or code."""
    path = folder / "config.json"
    content = read_json(path)
    for key, what in _REFUSED.items():
        if content.get(key) is not None:
            raise CheckpointError(
                f"{path} asks for {what} ({key}), expected plain weights. Save the model without "
                "it, in float32, bfloat16 or float16."
            )
    _check_numbers(path, content)
    return content


def of_module(module: Any) -> tuple[Shape, dict[str, Tensor]] | None:
    """Return sizes and tensors of transformers' own module, where it is a plain known encoder."""
    shape = read_shape(module.config.to_dict())
    if shape is None:
        return None
    held = module.state_dict()
    state = {name: held.get(name) for name, _ in shape.tensors()}
    return None if None in state.values() else (shape, state)


def check_finite(folder: Path, weights: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Raise CheckpointError where a number is not finite when it is read as ``dtype``."""
    for name, value in weights.items():
        # both ends at once, without a copy: 2.3 GB take 0.3 s
        ends = torch.stack(torch.aminmax(value.detach())) if value.numel() else torch.zeros(1)
        if not ends.to(dtype).isfinite().all():
            raise CheckpointError(
                f"{folder} expects finite weights, got NaN or infinity in {name} (read as "
                f"{dtype}). Copy the weights again, or use fp32."
            )


def add_delta(adapter: Adapter, state: MutableMapping[str, Tensor]) -> None:
    """Add a delta to the linear layers of a state, in float32."""
    ending = ".weight"
    layers = {
        name.removesuffix(ending): value
        for name, value in state.items()
        if value.ndim == 2 and name.endswith(ending) and name not in TABLES
    }
    state.update({f"{name}{ending}": value for name, value in merge(adapter, layers).items()})


def _mapped(files: list[Path], shape: Shape) -> dict[str, Tensor] | None:
    wanted = dict(shape.tensors())
    for prefix in _PREFIXES:
        names = {f"{prefix}{name}" for name in wanted}
        found: dict[str, Tensor] = {}
        for path in files:
            found |= map_tensors(path, names=names)
        if names == set(found):
            state = {name.removeprefix(prefix): value for name, value in found.items()}
            return state if _fits(state, wanted) else None
    return None


def _fits(state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> bool:
    return all(tuple(state[name].shape) == size for name, size in wanted.items())


def _check_numbers(path: Path, content: Mapping[str, Any]) -> None:
    for key in _SIZES:
        value = content.get(key)
        if value is None:
            continue
        largest = _MOST_LAYERS if key == "num_hidden_layers" else _LARGEST
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 1 <= value <= largest:
            raise CheckpointError(
                f"{path} expects {key} to be an integer from 1 to {largest:,}, got {value!r:.40}. "
                "Copy the model's own config.json."
            )
