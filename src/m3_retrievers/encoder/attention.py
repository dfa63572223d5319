"""Self-attention of sequences that lie end to end, without padding between them.

One sequence never sees another, so each is attended by itself, those of equal length at once: less
work than a padded batch, and far less than one mask of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from m3_retrievers.types.packed import offsets_of

# q, k, v (t, a, d), a heads of width d, to (t, a, d).
Attention: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]

_HALVES = (torch.float16, torch.bfloat16)
# The first NVIDIA architecture that flash attention runs on (Ampere), and its widest heads.
_FLASH_CAPABILITY = (8, 0)
_FLASH_WIDTH = 256


def attention(lengths: Sequence[int], *, like: Tensor, width: int) -> Attention:
    """Return softmax(q·kᵀ / √d)·v, sequence by sequence, for all layers of a pass.

    lengths: rows of each sequence; they lie end to end, and on a processor others may follow them.
    like: a tensor of the device and number type that is attended in. width: d, of a head.
    """
    if like.device.type == "cpu" or len(set(lengths)) == 1:
        return partial(_by_length, lengths=lengths)
    if width <= _FLASH_WIDTH and not width % 8 and _can_flash(like.device, like.dtype):
        return _Flash(lengths, device=like.device)
    return PaddedAttention(lengths, device=like.device)


def _by_length(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """Attend sequences of equal length at once; rows behind the last sequence give 0."""
    parts, first = [], 0
    for length, group in groupby(lengths):
        last = first + length * sum(1 for _ in group)
        queries, keys, values = (
            one[first:last].view(-1, length, *one.shape[1:]).transpose(1, 2)  # (b, a, l, d)
            for one in (q, k, v)
        )
        found = functional.scaled_dot_product_attention(queries, keys, values)
        parts.append(found.transpose(1, 2).flatten(0, 1))  # (b·l, a, d)
        first = last
    if first < len(q):
        parts.append(q.new_zeros(len(q) - first, *q.shape[1:]))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Flash:
    """All sequences in one launch of PyTorch's flash attention for sequences end to end."""

    def __init__(self, lengths: Sequence[int], *, device: torch.device) -> None:
        from torch.nn.attention.varlen import varlen_attn

        self._run: Any = varlen_attn
        ends = torch.from_numpy(offsets_of(lengths).astype(np.int32))
        self._ends = ends.to(device)
        self._longest = max(lengths)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ends, longest = self._ends, self._longest
        found: Tensor = self._run(q, k, v, ends, ends, longest, longest)
        return found


class PaddedAttention:
    """All at once under a mask: an accelerator waits for launches, not for padding.

    Which row goes where is known before the first layer, so that no layer waits for an answer.
    """

    def __init__(self, lengths: Sequence[int], *, device: torch.device) -> None:
        longest, firsts = max(lengths), offsets_of(lengths)[:-1]
        mask = np.arange(longest) < np.asarray(lengths)[:, None]  # (b, l)
        rows = np.where(mask, firsts[:, None] + np.arange(longest), 0)
        places = (rows, np.flatnonzero(mask), mask[:, None, None])
        self._rows, self._kept, self._mask = (torch.from_numpy(one).to(device) for one in places)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, keys, values = (one[self._rows].transpose(1, 2) for one in (q, k, v))
        found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=self._mask)
        return found.transpose(1, 2).flatten(0, 1)[self._kept]


@cache
def _can_flash(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this PyTorch has such a kernel for this device (PyTorch 2.10)."""
    return (
        device.type == "cuda"
        and dtype in _HALVES
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= _FLASH_CAPABILITY
        and find_spec("torch.nn.attention.varlen") is not None
    )
