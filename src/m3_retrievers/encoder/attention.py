"""Self-attention of sequences that lie end to end, without padding between them.

One sequence never sees another, so each is attended by itself, those of equal length at once: less
work than a padded batch, and far less than one mask of blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return (t, a, d) softmax(q·kᵀ / √d)·v, sequence by sequence.

    q, k, v: (t, a, d), a heads of width d, of sequences with so many rows each, end to end.
    """
    if q.device.type == "cpu" or len(set(lengths)) == 1:
        return _by_length(q, k, v, lengths)
    return _padded(q, k, v, lengths)


def _by_length(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
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
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _padded(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """Attend all at once under a mask: an accelerator waits for launches, not for padding."""
    count = torch.tensor(lengths, device=q.device)
    mask = torch.arange(max(lengths), device=q.device) < count[:, None]  # (b, l)

    def spread(rows: Tensor) -> Tensor:
        wide = rows.new_zeros((*mask.shape, *rows.shape[1:]))
        wide[mask] = rows
        return wide.transpose(1, 2)  # (b, a, l, d)

    found = functional.scaled_dot_product_attention(
        spread(q), spread(k), spread(v), attn_mask=mask[:, None, None]
    )
    return found.transpose(1, 2)[mask]
