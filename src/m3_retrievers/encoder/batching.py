"""Which texts share a forward pass: sorted by length, cut by a budget of tokens.

A batch costs (texts × longest text) tokens, padding included, so the budget bounds both
memory and wasted work whatever the lengths are; a count of texts bounds neither.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from m3_retrievers.errors import MemoryWarning, warn


def plan_batches(lengths: NDArray[np.integer[Any]], *, budget: int) -> list[NDArray[np.int64]]:
    """Return the batches, each an array of positions, longest texts first.

    lengths: (n,) tokens of each text. budget: tokens of a padded batch, ≥ 1; a text longer
    than the budget has a batch of its own. Equal lengths keep their order.

    >>> [batch.tolist() for batch in plan_batches(np.array([2, 5, 2, 4]), budget=8)]
    [[1], [3, 0], [2]]
    """
    order = np.argsort(-lengths, kind="stable")
    batches, first = [], 0
    while first < len(order):
        count = max(1, budget // max(1, int(lengths[order[first]])))
        batches.append(order[first : first + count])
        first += count
    return batches


def run_batches(
    lengths: NDArray[np.integer[Any]],
    run: Callable[[NDArray[np.int64]], None],
    *,
    budget: int,
) -> Iterator[NDArray[np.int64]]:
    """Call ``run`` on every batch and yield the positions each finished.

    When memory runs out, the budget is halved for what is left and a MemoryWarning says so;
    if a single text does not fit, the error surfaces. Any other error surfaces unchanged.
    """
    queue = deque(plan_batches(lengths, budget=budget))
    while queue:
        batch = queue.popleft()
        try:
            run(batch)
        except (MemoryError, RuntimeError) as error:
            if len(batch) == 1 or not out_of_memory(error):
                raise
            budget = max(1, int(lengths[batch].max()) * len(batch) // 2)
            warn(
                f"Memory ran out on a batch of {len(batch)} texts; going on with a budget of "
                f"{budget} tokens. Pass batch_tokens={budget} to start there.",
                MemoryWarning,
            )
            left = np.concatenate([batch, *queue])
            queue = deque(left[again] for again in plan_batches(lengths[left], budget=budget))
            continue
        yield batch


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the processor or an accelerator."""
    # torch raises its own class on accelerators, and a plain RuntimeError from the CPU allocator
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "can't allocate memory" in str(error) or "not enough memory" in str(error)
    )
