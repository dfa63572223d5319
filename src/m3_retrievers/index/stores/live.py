"""Which rows of an index are alive, booked once for all its stores."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.index.stores.chunks import GrowingRows

_GENERATIONS = count(1)


class LiveRows:
    """A mask of the rows that were not deleted, and a number that no other state of it has.

    What is computed from the live rows (BM25's statistics, the rows a filter admits) is kept
    with the ``generation`` it was computed for.

    >>> live = LiveRows(2)
    >>> live.delete(np.array([0])), live.append(1)
    (None, None)
    >>> live.mask.tolist(), live.count
    ([False, True, True], 2)
    """

    def __init__(self, rows: int = 0) -> None:
        """Start with that many rows, all of them alive."""
        self._mask = GrowingRows(np.ones(rows, bool))
        self.count = rows
        self.generation = next(_GENERATIONS)

    def __len__(self) -> int:
        """Return the number of rows, deleted ones included."""
        return len(self._mask)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(n,) True for the rows that are alive, a view."""
        return self._mask.rows

    @property
    def rows(self) -> NDArray[np.int64]:
        """The numbers of the rows that are alive, ascending."""
        return np.flatnonzero(self.mask)

    def append(self, count: int) -> None:
        """Add rows that are alive."""
        self._mask.append(np.ones(count, bool))
        self.count += count
        self.generation = next(_GENERATIONS)

    def delete(self, rows: NDArray[np.integer[Any]]) -> None:
        """Mark rows, each of them alive so far, as deleted."""
        self.mask[rows] = False
        self.count -= len(rows)
        self.generation = next(_GENERATIONS)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take a number of this process's own: another one counts from the start as well."""
        self.__dict__.update(state)
        self.generation = next(_GENERATIONS)
