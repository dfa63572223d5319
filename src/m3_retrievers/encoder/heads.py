"""The two heads BGE-M3 adds to its backbone, and how they are read from disk.

``sparse_linear`` maps a hidden state to one term weight, ``colbert_linear`` to a token
vector (paper section 3.2). A head that is asked for and missing is an error: a random
head would give numbers that look like scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from m3_retrievers.encoder.files import map_tensors
from m3_retrievers.errors import CheckpointError, HeadShapeError, InputError, MissingHeadError

SPARSE_FILE = "sparse_linear"
COLBERT_FILE = "colbert_linear"
_ENDINGS = (".safetensors", ".pt")


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """Which heads a model has.

    sparse: read ``sparse_linear``, or do without. colbert: read ``colbert_linear``, take
    the hidden states as they are (``"identity"``), or do without.
    """

    sparse: bool = True
    colbert: bool | Literal["identity"] = True

    def __post_init__(self) -> None:
        if not isinstance(self.sparse, bool) or self.colbert not in (True, False, "identity"):
            raise InputError(
                "HeadSpec expects sparse True or False and colbert True, False or 'identity', got "
                f"sparse={self.sparse!r}, colbert={self.colbert!r}."
            )


class Heads(nn.Module):
    """Both heads over packed hidden states (t, h); a head that is not there is None."""

    def __init__(self, sparse: nn.Linear | None, colbert: nn.Module | None) -> None:
        super().__init__()
        self.sparse_linear = sparse
        self.colbert_linear = colbert

    def term_weights(self, hidden: Tensor) -> Tensor:
        """Return (t,) relu(sparse_linear(h)), ≥ 0, of packed hidden states (t, h)."""
        if self.sparse_linear is None:
            raise MissingHeadError("Term weights expect a sparse head; this model has none.")
        weights: Tensor = functional.relu(self.sparse_linear(hidden))
        return weights.squeeze(-1)

    def token_vectors(self, hidden: Tensor) -> Tensor:
        """Return (t, d) unit ColBERT vectors of packed hidden states (t, h)."""
        if self.colbert_linear is None:
            raise MissingHeadError("Token vectors expect a ColBERT head; this model has none.")
        return functional.normalize(self.colbert_linear(hidden), dim=-1)


def load_heads(folder: Path, spec: HeadSpec, *, hidden_size: int) -> Heads:
    """Return the heads ``spec`` asks for, in float32, read from ``folder``.

    Raises MissingHeadError, HeadShapeError or CheckpointError, each naming the file.
    """
    sparse = _linear(folder, SPARSE_FILE, hidden_size) if spec.sparse else None
    if sparse is not None and sparse.out_features != 1:
        raise HeadShapeError(
            f"{head_file(folder, SPARSE_FILE)} expects weight [1, {hidden_size}], got "
            f"[{sparse.out_features}, {hidden_size}]. Use the head saved with this backbone."
        )
    colbert: nn.Module | None = None
    if spec.colbert == "identity":
        colbert = nn.Identity()
    elif spec.colbert:
        colbert = _linear(folder, COLBERT_FILE, hidden_size)
    return Heads(sparse, colbert).eval()


def head_file(folder: Path, stem: str) -> Path:
    """Return the file that holds a head; MissingHeadError where there is none."""
    for ending in _ENDINGS:
        path = folder / f"{stem}{ending}"
        if path.is_file():
            return path
    option = "sparse" if stem == SPARSE_FILE else "colbert"
    raise MissingHeadError(
        f"{folder} is expected to hold {stem}.pt or {stem}.safetensors, and has neither. Add the "
        f"file, or do without this head: heads=HeadSpec({option}=False)."
    )


def _linear(folder: Path, stem: str, hidden_size: int) -> nn.Linear:
    path = head_file(folder, stem)
    state = map_tensors(path)
    weight, bias = state.get("weight"), state.get("bias")
    if weight is None or bias is None or set(state) != {"weight", "bias"}:
        raise HeadShapeError(
            f"{path} expects the tensors 'weight' and 'bias', got {sorted(map(str, state))}. "
            "Save the state dict of one nn.Linear."
        )
    fits = weight.ndim == 2 and weight.shape[1] == hidden_size and bias.shape == weight.shape[:1]
    if not fits or not len(weight):
        raise HeadShapeError(
            f"{path} expects weight [d, {hidden_size}] and bias [d], got {list(weight.shape)} and "
            f"{list(bias.shape)}. Use the head saved with this backbone."
        )
    if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise CheckpointError(f"{path} expects finite numbers, got NaN or infinity. Save it again.")
    # the copies own their memory: the file may be replaced while the model is in use
    linear = nn.Linear(hidden_size, weight.shape[0], device="meta")
    copied = {"weight": weight.float().clone(), "bias": bias.float().clone()}
    linear.load_state_dict(copied, assign=True)
    return linear
