"""The inner products of token vectors that late interaction takes its maxima of: the kernel.

``packed_maxsim`` is the plain way to the same numbers, which a test holds this one equal to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from m3_retrievers.scoring.packed_product import PackedProduct, can_pack
from m3_retrievers.types.packed import Floats

# A product with 14 columns takes 2.5 times as long as one with 16, which fill AVX-512's
# registers (256 × 1024 float32 by 14: 27 GFLOP/s, by 16: 76, on one core).
_COLUMNS = 16
# Values widened to float32 at once: 2^19 are 2 MiB, which two cores' caches hold. 200 documents
# of 128 × 1024 float16 take 16.6 ms on one core; with 2^18 17.9, 2^20 19.1, 2^21 24.6.
_VALUES_AT_ONCE = 1 << 19
# A call of torch for a piece of fewer values takes longer than to put small ones together first.
_SMALL = 1 << 15
# Blocks of so many rows or a multiple are taken as they are; see ``packed_product.whole_rows``.
_STEP = 512
# Vectors up to this width are multiplied by oneDNN.
_PACKED_WIDTH = 512


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
    product = _packed(columns) or partial(torch.matmul, other=columns)
    products = torch.empty(rows, columns.shape[1])
    done = 0
    for block in _widened(pieces, width=len(columns)):
        products[done : done + len(block)] = product(block)
        done += len(block)
    found: NDArray[np.float32] = products.numpy()[:, : len(q_vectors)]
    return found


def _packed(columns: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return a product with columns (h, i) that oneDNN has laid out; None where it is no faster.

    1,024 rows of 384 by 16: 85 GFLOP/s on one core, where MKL's product makes 63; of 1,024: 51
    and 70.
    """
    if len(columns) > _PACKED_WIDTH or not can_pack(torch.float32):
        return None
    # a block is one call: of so few columns, several would cost a third more
    return PackedProduct(columns.T, at_once=_block_rows(len(columns)))


def _widened(pieces: Iterable[Floats], *, width: int) -> Iterator[Tensor]:
    """Yield the rows of all pieces as float32 blocks, each good until the next one."""
    size = _block_rows(width)
    # one buffer for all: new pages for each block would cost as much as the conversion
    buffer = torch.empty(size, width)
    waiting: list[Floats] = []
    filled = 0
    for piece in pieces:
        at, rows = 0, piece.shape[0]
        while at < rows:
            part = piece[at : at + size - filled]
            waiting.append(part)
            at, filled = at + part.shape[0], filled + part.shape[0]
            if filled == size:
                yield _fill(buffer, waiting)
                waiting, filled = [], 0
    if filled:
        yield _fill(buffer[:filled], waiting)


def _block_rows(width: int) -> int:
    size = max(1, _VALUES_AT_ONCE // max(1, width))
    return size - (size % _STEP if size > _STEP else 0)


def _fill(block: Tensor, parts: list[Floats]) -> Tensor:
    """Copy parts into the rows of a block, and return it."""
    if block.numel() < _SMALL * len(parts):
        parts = [np.concatenate(parts)]
    at = 0
    for part in parts:
        block.narrow(0, at, part.shape[0]).copy_(_tensor(part))
        at += part.shape[0]
    return block


def _tensor(array: NDArray[Any]) -> Tensor:
    # torch takes no array that must not be written to
    return torch.from_numpy(array if array.flags.writeable else array.copy())
