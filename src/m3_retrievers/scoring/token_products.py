"""The inner products of token vectors that late interaction takes its maxima of: the kernel.

``packed_maxsim`` is the plain way to the same numbers, which a test holds this one equal to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from m3_retrievers.types.packed import Floats

# A product with 14 columns takes 2.5 times as long as one with 16, which fill AVX-512's
# registers (256 × 1024 float32 by 14: 27 GFLOP/s, by 16: 76, on one core).
_COLUMNS = 16
# Values widened to float32 at once: 2^19 are 2 MiB, which two cores' caches hold. 200 documents
# of 128 × 1024 float16 take 16.6 ms on one core; with 2^18 17.9, 2^20 19.1, 2^21 24.6.
_VALUES_AT_ONCE = 1 << 19


def columns_of(q_vectors: Tensor) -> Tensor:
    """Return query vectors (i, h) as columns (h, i'), zeros behind them up to a multiple of 16."""
    return pad(q_vectors, (0, 0, 0, -len(q_vectors) % _COLUMNS)).T.contiguous()


def token_products(
    q_vectors: Tensor, pieces: Iterable[Floats], *, rows: int
) -> NDArray[np.float32]:
    """Return (j, i) inner products of document tokens with query tokens, in float32.

    q_vectors: (i, h) float32. pieces: arrays (·, h), float16 or float32, that are the ``rows``
    document vectors when put behind each other; each is read once, and none is copied whole.

    >>> q = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> token_products(q, [np.array([[3, 4]], np.float16), np.eye(2, dtype=np.float32)], rows=3)
    array([[3., 4.],
           [1., 0.],
           [0., 1.]], dtype=float32)
    """
    columns = columns_of(q_vectors)
    products = torch.empty(rows, columns.shape[1])
    done = 0
    for block in _widened(pieces, width=len(columns)):
        torch.mm(block, columns, out=products[done : done + len(block)])
        done += len(block)
    found: NDArray[np.float32] = products.numpy()[:, : len(q_vectors)]
    return found


def _widened(pieces: Iterable[Floats], *, width: int) -> Iterator[Tensor]:
    """Yield the rows of all pieces as float32 blocks, each good until the next one."""
    size = max(1, _VALUES_AT_ONCE // max(1, width))
    # one buffer for all: new pages for each block would cost as much as the conversion
    buffer, filled = torch.empty(size, width), 0
    for piece in pieces:
        for at in range(0, len(piece), size):
            part = _tensor(piece[at : at + size])
            taken = min(len(part), size - filled)
            buffer[filled : filled + taken].copy_(part[:taken])
            filled += taken
            if filled == size:
                yield buffer
                filled = len(part) - taken
                buffer[:filled].copy_(part[taken:])
    if filled:
        yield buffer[:filled]


def _tensor(array: NDArray[Any]) -> Tensor:
    # torch takes no array that must not be written to
    return torch.from_numpy(array if array.flags.writeable else array.copy())
