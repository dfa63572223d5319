"""Files of a model folder, read so that whatever is wrong with one is a CheckpointError.

Tensors are mapped, not read: a file that claims more numbers than it holds is refused by its
shapes, before anything is allocated for them.
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Container
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from m3_retrievers.encoder.batching import out_of_memory
from m3_retrievers.errors import CheckpointError, M3Error

# What transformers, safetensors, torch and the standard library were seen to raise.
_RAISED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    SafetensorError,
)


def is_there(path: Path) -> bool:
    """Whether a folder lists a file, even as a link to nowhere, which is then an error to read."""
    return os.path.lexists(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; CheckpointError where there is none."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is expected to hold JSON and cannot be read as that ({error}). "
            "Copy or write it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} is expected to hold a JSON object, got {content!r:.60}. "
            "Copy or write it again."
        )
    return content


def map_tensors(path: Path, *, names: Container[str] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` or ``.pt`` file, by name, mapped from the disk.

    names: those that are wanted, where the file has them; None is all. Raises CheckpointError
    for a torn file, for anything but floating-point tensors, and for a tensor that is larger than
    what the file holds of it.
    """
    state = _map(path)
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path} expects a dict of tensors, got {type(state).__name__}. Save a state dict."
        )
    if names is not None:
        state = {name: value for name, value in state.items() if name in names}
    for name, value in state.items():
        if not isinstance(value, Tensor) or not _is_plain(value):
            raise CheckpointError(
                f"{path} expects plain tensors of floating-point numbers, got {name!r} as "
                f"{_described(value)}. Save the state dict again."
            )
        held = value.untyped_storage().nbytes()
        if value.numel() * value.element_size() > held:
            raise CheckpointError(
                f"{path} claims a tensor {name!r} of shape {list(value.shape)} and holds "
                f"{held:,} bytes for it. Save it again, contiguous."
            )
    return state


def check_safetensors(path: Path) -> None:
    """Raise CheckpointError unless a file is a whole safetensors file; no tensor is read."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is torn or no safetensors file ({error}). Copy or download it again."
        ) from error


def _map(path: Path) -> Any:
    with converted(
        f"{path} cannot be read",
        "The file is torn or holds something else; copy it again, or save the tensors again "
        "with torch.save or safetensors.",
    ):
        if path.suffix == ".safetensors":
            return load_file(path)
        with zipfile.ZipFile(path) as archive:
            packed = any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist())
        if packed:  # torch never compresses; unpacked, a few bytes could be gigabytes
            raise CheckpointError(f"{path} is compressed, expected a file of torch.save's.")
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)


class converted:  # noqa: N801
    """Turns what other libraries raise over a broken file into a CheckpointError.

    Memory that ran out is no fault of the file and stays what it is. tokenizers raises plain
    Exceptions, and panics that are no Exceptions: no ``except`` can tell these from others, so
    the exact type is looked at here.
    """

    def __init__(self, message: str, advice: str) -> None:
        self._message = message
        self._advice = advice

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None or error is None or isinstance(error, M3Error) or out_of_memory(error):
            return
        by_tokenizers = kind is Exception or kind.__module__ == "pyo3_runtime"
        # huggingface_hub's errors are loaded where one was raised, and take 0.3 s otherwise
        by_hub = kind.__module__ == "huggingface_hub.errors"
        if not by_tokenizers and not by_hub and not isinstance(error, _RAISED):
            return
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{self._message} ({reason:.300}). {self._advice}") from error


def _is_plain(value: Tensor) -> bool:
    return (
        value.is_floating_point()
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} on {value.device}, {value.layout}"
    return type(value).__name__
