"""The only place where transformers reads a model folder: local files, and no code from them.

A config.json may name Python files of its own (``auto_map``), attention kernels to fetch from a
hub (``attn_implementation="kernels-community/…"``) or a quantizer that fetches some. None of it
is followed, nothing is asked on the terminal, and whatever transformers raises over a broken
file is a CheckpointError.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from m3_retrievers.encoder.files import check_safetensors, converted, is_there, read_json
from m3_retrievers.encoder.source import tokenizer_file, weight_files
from m3_retrievers.encoder.weights import check_finite, read_config
from m3_retrievers.errors import CheckpointError

_TOKENIZER_JSON = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def load_config(folder: Path) -> Any:
    """Return the backbone's configuration, checked; CheckpointError for what cannot be one."""
    path = folder / "config.json"
    kind = read_json(path).get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{path} has the model_type {kind!r:.60}, expected one that transformers knows. Code "
            "that comes with a model is never run: use a model of a known type, or update "
            "transformers."
        )
    read_config(folder)
    with _reading(folder, "a configuration"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        # the file may name kernels of a hub here; None is transformers' own choice
        config._attn_implementation = None
        config._experts_implementation = None
    _check_sizes(path, config)
    return config


def load_backbone(folder: Path, dtype: torch.dtype) -> Any:
    """Return the backbone in evaluation mode, on the CPU, complete and finite."""
    model = _complete(
        AutoModel,
        folder,
        dtype,
        what="the backbone's",
        advice="Use a complete checkpoint of this architecture.",
    )
    _check_output(folder, model)
    return model


def load_masked_model(folder: Path) -> Any:
    """Return the backbone with its masked-language head, in float32; a missing head is new."""
    config = load_config(folder)
    return _from_pretrained(AutoModelForMaskedLM, folder, config=config, dtype=torch.float32)


def load_masked_language_model(folder: Path, dtype: torch.dtype) -> Any:
    """Return a masked-language model in evaluation mode, on the CPU, complete and finite."""
    return _complete(
        AutoModelForMaskedLM,
        folder,
        dtype,
        what="a masked-language model's",
        advice="Use a checkpoint that was saved with its head, such as a SPLADE model.",
    )


def load_tokenizer(folder: Path) -> Any:
    """Return the transformers tokenizer of a folder, with padding and truncation off."""
    tokenizer_file(folder)  # raises where there is none
    for name in _TOKENIZER_JSON:
        if is_there(folder / name):
            read_json(folder / name)
    with _reading(folder, "a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"{folder} is expected to hold a tokenizer.json (a fast tokenizer), and does "
            "not. Save one there with AutoTokenizer.from_pretrained(…).save_pretrained(…)."
        )
    # a tokenizer.json may ask for padding or a cut of its own; lengths are decided in pieces.py
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def _complete(kind: Any, folder: Path, dtype: torch.dtype, *, what: str, advice: str) -> Any:
    """Return a model of a kind of transformers', its files checked before and after."""
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            check_safetensors(path)
    config = load_config(folder)
    _check_amount(folder, config)
    model, report = _from_pretrained(
        kind, folder, config=config, dtype=dtype, output_loading_info=True
    )
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of {what} tensors ({', '.join(missing[:3])}…): "
            f"they would be random. {advice}"
        )
    check_finite(folder, dict(model.named_parameters()), dtype)
    model.eval()
    return model


def _from_pretrained(kind: Any, folder: Path, **options: Any) -> Any:
    with _reading(folder, "a backbone"):
        return kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, weights_only=True, **options
        )


@contextmanager
def _reading(folder: Path, what: str) -> Iterator[None]:
    """Turn what other libraries raise over a folder's files into a CheckpointError."""
    message = f"{folder} is expected to hold {what} that can be read, and does not"
    with quiet_transformers(), converted(message, "Copy or download its files again."):
        yield


def _check_sizes(path: Path, config: Any) -> None:
    width, heads = (getattr(config, name, None) for name in ("hidden_size", "num_attention_heads"))
    needed = {
        "hidden_size": width,
        "vocab_size": getattr(config, "vocab_size", None),
        "max_position_embeddings": getattr(config, "max_position_embeddings", None),
    }
    for name, value in needed.items():
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(
                f"{path} expects {name} to be an integer of at least 1, got {value!r:.40}. Use an "
                "encoder such as BERT or XLM-RoBERTa."
            )
    padding = getattr(config, "pad_token_id", None)
    if padding is not None and (type(padding) is not int or not 0 <= padding < config.vocab_size):
        raise CheckpointError(
            f"{path} expects pad_token_id to be below vocab_size ({config.vocab_size}), got "
            f"{padding!r:.40}. Copy the model's own config.json."
        )
    if isinstance(heads, int) and isinstance(width, int) and width % heads:
        raise CheckpointError(
            f"{path} expects num_attention_heads to divide hidden_size, got {heads} and {width}. "
            "Copy the model's own config.json."
        )


def _check_amount(folder: Path, config: Any) -> None:
    """Refuse a configuration that asks for more numbers than the files have bytes.

    transformers would allocate and fill what is missing before it reports it.
    """
    with _reading(folder, "a backbone"), torch.device("meta"):
        outline = AutoModel.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
    wanted = sum(
        math.prod(value.shape)
        for name, value in outline.named_parameters()
        if not name.startswith("pooler.")
    )
    held = sum(path.stat().st_size for path in weight_files(folder))
    if wanted > held:
        raise CheckpointError(
            f"{folder}/config.json describes a backbone of {wanted:,} numbers, and its files of "
            f"weights hold {held:,} bytes. Use the configuration and the weights of one model."
        )


def _check_output(folder: Path, model: Any) -> None:
    """Run the backbone once: what a configuration breaks shows here, not at the first query."""
    with _reading(folder, "a backbone"), torch.inference_mode():
        states = model(input_ids=torch.zeros((1, 2), dtype=torch.long)).last_hidden_state
    if tuple(states.shape) != (1, 2, model.config.hidden_size):
        raise CheckpointError(
            f"{folder} is expected to give one state of width {model.config.hidden_size} a token, "
            f"and gives {tuple(states.shape)} for 1 text of 2. Use an encoder such as XLM-RoBERTa."
        )


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
