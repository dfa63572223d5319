"""Which texts share a forward pass: sorted by length, cut by a budget of tokens.

A padded batch costs (texts × longest text) tokens, a packed one the tokens it has. The budget
bounds memory, and with padding wasted work, whatever the lengths are; a count of texts does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from m3_retrievers.errors import MemoryWarning, warn
from m3_retrievers.types.packed import offsets_of


def plan_batches(
    lengths: NDArray[np.integer[Any]], *, budget: int, padded: bool = True
) -> list[NDArray[np.int64]]:
    """Return the batches, each an array of positions, longest texts first.

    lengths: (n,) tokens of each text. budget: tokens of a batch, ≥ 1, those of its padding
    included where it is ``padded``; a text longer than the budget has a batch of its own. Equal
    lengths keep their order.

    >>> [batch.tolist() for batch in plan_batches(np.array([2, 5, 2, 4]), budget=8)]
    [[1], [3, 0], [2]]
    >>> [batch.tolist() for batch in plan_batches(np.array([2, 5, 2, 4]), budget=8, padded=False)]
    [[1], [3, 0, 2]]
    """
    order = np.argsort(-lengths, kind="stable")
    ends = offsets_of(lengths[order])
    batches, first = [], 0
    while first < len(order):
        if padded:
            count = budget // max(1, int(lengths[order[first]]))
        else:
            count = int(np.searchsorted(ends, ends[first] + budget, side="right")) - 1 - first
        batches.append(order[first : first + max(1, count)])
        first += max(1, count)
    return batches


def run_batches(
    lengths: NDArray[np.integer[Any]],
    run: Callable[[NDArray[np.int64]], None],
    *,
    budget: int,
    padded: bool = True,
) -> Iterator[NDArray[np.int64]]:
    """Call ``run`` on every batch and yield the positions each finished.

    When memory runs out, the budget is halved for what is left and a MemoryWarning says so;
    if a single text does not fit, the error surfaces. Any other error surfaces unchanged.
    """
    queue = deque(plan_batches(lengths, budget=budget, padded=padded))
    while queue:
        batch = queue.popleft()
        try:
            run(batch)
        except (MemoryError, RuntimeError) as error:
            if len(batch) == 1 or not out_of_memory(error):
                raise
            longest = int(lengths[batch].max())
            size = longest * len(batch) if padded else int(lengths[batch].sum())
            budget = max(1, size // 2)
            warn(
                f"Memory ran out on a batch of {len(batch)} texts; going on with a budget of "
                f"{budget} tokens. Pass batch_tokens={budget} to start there.",
                MemoryWarning,
            )
            left = np.concatenate([batch, *queue])
            plan = plan_batches(lengths[left], budget=budget, padded=padded)
            queue = deque(left[again] for again in plan)
            continue
        yield batch


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the processor or an accelerator."""
    # torch raises its own class on accelerators, and a plain RuntimeError from the CPU allocator
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "can't allocate memory" in str(error) or "not enough memory" in str(error)
    )
