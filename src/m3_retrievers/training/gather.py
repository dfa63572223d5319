"""The passages of all devices as candidates of every device's queries.

The gather is differentiable: each device's loss reaches the passages wherever they were
encoded, and the average over devices is the gradient of one large batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import FunctionCtx

from m3_retrievers.training.similarity import Encoded, Terms, TokenVectors


def world() -> tuple[int, int]:
    """Return this process's rank and how many there are; (0, 1) where there is no group."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def gather_encoded(texts: Encoded, *, device: torch.device) -> tuple[Encoded, int]:
    """Return the texts of all processes, rank after rank, and the row where this rank's begin."""
    rank, _ = world()
    counts = [len(part) for part in _parts(torch.zeros(texts.count, device=device))]
    first = sum(counts[:rank])
    dense, terms, colbert = texts.dense, texts.terms, texts.colbert
    if dense is not None:
        dense = gather_rows(dense)
    if terms is not None:
        parts = (terms.weights, terms.ids, terms.rows + first)
        terms = Terms(*(gather_rows(part) for part in parts))
    if colbert is not None:
        lengths = gather_rows(colbert.offsets.diff())
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        colbert = TokenVectors(gather_rows(colbert.vectors), offsets)
    return Encoded(sum(counts), dense, terms, colbert), first


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
    parts = _Gather.apply(padded)  # type: ignore[no-untyped-call]
    return [part[: int(n)] for part, n in zip(parts, counts, strict=True)]


class _Gather(torch.autograd.Function):
    """Every process's tensor, of one shape; backward brings each process all losses' gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor) -> Any:  # noqa: ARG004
        parts = [torch.empty_like(rows) for _ in range(world()[1])]
        distributed.all_gather(parts, rows.contiguous())
        return tuple(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Any:  # noqa: ARG004
        whole = torch.stack(gradients)
        distributed.all_reduce(whole)
        return whole[world()[0]]
