"""The passages of all devices as candidates of every device's queries.

The gather is differentiable: each device's loss reaches the passages wherever they were
encoded, and the average over devices is the gradient of one large batch.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather

from m3_retrievers.training.similarity import Encoded


def world() -> tuple[int, int]:
    """Return this process's rank and how many there are; (0, 1) where there is no group."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def gather_encoded(texts: Encoded) -> tuple[Encoded, int]:
    """Return the texts of all processes, rank after rank, and the row where this rank's begin."""
    rank, _ = world()
    counts = [len(part) for part in _parts(torch.zeros(texts.count, device=_device(texts)))]
    starts = torch.tensor([0, *counts]).cumsum(0)
    gathered = replace(texts, count=sum(counts))
    if texts.dense is not None:
        gathered = replace(gathered, dense=gather_rows(texts.dense))
    if texts.weights is not None:
        assert texts.ids is not None and texts.rows is not None
        moved = texts.rows + int(starts[rank])
        gathered = replace(
            gathered,
            weights=gather_rows(texts.weights),
            ids=gather_rows(texts.ids),
            rows=gather_rows(moved),
        )
    if texts.vectors is not None:
        assert texts.offsets is not None
        lengths = gather_rows(texts.offsets.diff())
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        gathered = replace(gathered, vectors=gather_rows(texts.vectors), offsets=offsets)
    return gathered, int(starts[rank])


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes end to end, however many each has; keeps gradients."""
    return torch.cat(_parts(rows))


def _parts(rows: Tensor) -> list[Tensor]:
    _, size = world()
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(size)]
    distributed.all_gather(counts, count)
    most = int(max(counts))
    padding = rows.new_zeros(most - len(rows), *rows.shape[1:])
    padded = torch.cat([rows, padding])
    if rows.requires_grad:
        parts = list(all_gather(padded))
    else:
        parts = [torch.empty_like(padded) for _ in range(size)]
        distributed.all_gather(parts, padded)
    return [part[: int(n)] for part, n in zip(parts, counts, strict=True)]


def _device(texts: Encoded) -> torch.device:
    for tensor in (texts.dense, texts.weights, texts.vectors):
        if tensor is not None:
            return tensor.device
    return torch.device("cpu")
