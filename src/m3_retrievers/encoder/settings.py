"""How an encoder reads texts, and on what it runs: the options, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from m3_retrievers.encoder.pieces import TRUNCATIONS, Truncation
from m3_retrievers.errors import InputError, MissingHeadError
from m3_retrievers.types.plan import HybridWeights
from m3_retrievers.types.representations import ALL_OUTPUTS, Output

DType: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]

# Tokens of a batch. Processors run best while a batch's activations stay in cache; accelerators
# want enough work to fill them, and the results of one batch are taken in beside the next.
_BUDGETS = {"cpu": 2_000, "cuda": 16_384, "mps": 8_192}


@dataclass(frozen=True, slots=True)
class Settings:
    """How texts are read; see ``M3Encoder.from_pretrained`` for each."""

    truncation: Truncation = "warn"
    query_max_length: int = 512
    document_max_length: int = 8192
    query_instruction: str = ""
    truncate_dim: int | None = None
    mcls_every: int | None = None
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.truncation not in TRUNCATIONS:
            raise InputError(f"truncation expects one of {TRUNCATIONS}, got {self.truncation!r}.")
        if not isinstance(self.query_instruction, str):
            raise InputError(
                f"query_instruction expects a string, got {self.query_instruction!r:.60}. "
                "Leave it out for none."
            )
        for name, least in (
            ("query_max_length", 3),
            ("document_max_length", 3),
            ("truncate_dim", 1),
            ("mcls_every", 1),
            ("batch_tokens", 1),
        ):
            value = getattr(self, name)
            optional = name in ("truncate_dim", "mcls_every", "batch_tokens")
            if value is None and optional:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} expects an integer of at least {least}, got {value!r}.")


def check_settings(settings: Settings | None, *, pooling: str) -> Settings:
    """Return the settings, or the defaults for None; InputError where the model cannot take them.

    pooling: the model's.
    """
    if settings is None:
        return Settings()
    if not isinstance(settings, Settings):
        raise InputError(
            f"settings expects Settings or None, got {settings!r:.60}. "
            "M3Encoder.from_pretrained takes each of them by name."
        )
    if settings.mcls_every is not None and pooling != "cls":
        raise InputError(
            f"mcls_every expects a model with CLS pooling, got {pooling!r} pooling. "
            "Leave it out for this model."
        )
    return settings


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return the device asked for, or the fastest kind there is: CUDA, MPS, processor."""
    if device is not None:
        try:
            chosen = torch.device(device)
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"device expects 'cpu', 'cuda', 'cuda:1', 'mps', …, got {device!r:.60}."
            ) from error
        missing = {
            "cuda": not torch.cuda.is_available(),
            "mps": not torch.backends.mps.is_available(),
        }
        if missing.get(chosen.type, False):
            raise InputError(
                f"device expects one that is there, got {device!r}, which PyTorch does not find. "
                "Leave it out to take the fastest there is."
            )
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(dtype: DType, device: torch.device) -> torch.dtype:
    """Return the backbone's number type; ``"auto"`` is float16 on CUDA, float32 elsewhere."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if not isinstance(dtype, str) or dtype not in known:
        raise InputError(f"dtype expects 'auto' or one of {list(known)}, got {dtype!r:.60}.")
    return known[dtype]


def choose_budget(batch_tokens: int | None, device: torch.device) -> int:
    """Return how many tokens a padded batch may have; None takes what suits the device."""
    return batch_tokens or _BUDGETS.get(device.type, _BUDGETS["cpu"])


def choose_outputs(
    outputs: Sequence[Output] | None, *, has: tuple[Output, ...], model: str
) -> tuple[Output, ...]:
    """Return the outputs asked for, in the order of ``ALL_OUTPUTS``; None takes all of ``has``.

    has: the outputs of the model, which can show its tokens, too. Raises InputError for an
    unknown output or none, MissingHeadError for one that the model lacks.
    """
    if outputs is None:
        return has
    known = (*ALL_OUTPUTS, "tokens")
    if isinstance(outputs, str) or not isinstance(outputs, Iterable):
        raise InputError(f"outputs expects a list with some of {known}, got {outputs!r:.60}.")
    asked = tuple(outputs)
    for name in asked:
        if name not in known:
            raise InputError(f"outputs expects some of {known}, got {name!r:.60}.")
        if name not in (*has, "tokens"):
            raise MissingHeadError(
                f"The output {name!r} expects a head that {model!r} does not have; it has "
                f"{has}. Leave it out, or load a model that has it."
            )
    if not asked:
        raise InputError(f"outputs expects a list with some of {known}, got none.")
    return tuple(name for name in known if name in asked)


def weights_for(outputs: Sequence[Output]) -> HybridWeights:
    """Return the paper's weights, of the outputs there are.

    >>> weights_for(("dense", "sparse"))
    HybridWeights(dense=1.0, sparse=0.3, colbert=0)
    """
    paper = HybridWeights()
    return HybridWeights(
        **{name: getattr(paper, name) if name in outputs else 0 for name in ALL_OUTPUTS}
    )
