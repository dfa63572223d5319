"""ColBERT vectors that stay in a file: only those of the documents to score are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.index.stores.chunks import GrowingRows
from m3_retrievers.index.stores.compressed import (
    ColbertDtype,
    check_colbert_dtype,
    expanded,
    width_of,
)
from m3_retrievers.index.stores.multivector import ColbertStore
from m3_retrievers.types.packed import MultiVectors, offsets_of

# Takes keys (r,) and the number of bytes under each; returns these bytes, in that order.
ReadVectors: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.int64]], list[bytes]]


class DiskVectors(ColbertStore):
    """The keys and lengths of n rows, and a way to read their vectors.

    Arrays: ``colbert.keys`` (n,), ``colbert.lengths`` (n,), both int64, ``colbert.width`` (1,): how
    many numbers a vector is kept in.
    """

    def __init__(self, read: ReadVectors, *, dtype: ColbertDtype = "float16") -> None:
        check_colbert_dtype(dtype)
        self.dtype = dtype
        self._read = read
        self._keys = GrowingRows(np.empty(0, np.int64))
        self._lengths = GrowingRows(np.empty(0, np.int64))
        self._kept_width: int | None = None

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def width(self) -> int | None:
        """The vectors' width, None before the first rows."""
        return None if self._kept_width is None else width_of(self._kept_width, self.dtype)

    def append(self, vectors: MultiVectors) -> None:
        """Not done here: the owner writes vectors to the file and gives their keys."""
        raise NotImplementedError("vectors get into the file first, then their keys in here")

    def extend(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add rows whose vectors are in the file already."""
        self._kept_width = int(arrays["colbert.width"][0])
        self._keys.append(arrays["colbert.keys"])
        self._lengths.append(arrays["colbert.lengths"])

    def arrays(self, rows: NDArray[np.integer[Any]]) -> dict[str, NDArray[Any]]:
        """Return keys, lengths and width of the given rows (r,)."""
        return {
            "colbert.keys": self._keys.rows[rows],
            "colbert.lengths": self._lengths.rows[rows],
            "colbert.width": np.array([self._kept_width or 0], np.int64),
        }

    def keep(self, rows: NDArray[np.integer[Any]]) -> DiskVectors:
        """Return a store of the given rows (r,) alone; none of them take any width."""
        kept = DiskVectors(self._read, dtype=self.dtype)
        if len(rows):
            kept.extend(self.arrays(rows))
        return kept

    def lengths(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return (r,) the number of vectors of each of the given rows."""
        lengths: NDArray[np.int64] = self._lengths.rows[rows]
        return lengths

    def gather(self, rows: NDArray[np.integer[Any]]) -> MultiVectors:
        """Return the token vectors of the given rows (r,), read from the file."""
        (kept,) = self._spans(rows)
        return MultiVectors(expanded(kept, self.dtype), offsets_of(self.lengths(rows)))

    def _spans(self, rows: NDArray[np.integer[Any]]) -> Iterator[NDArray[Any]]:
        """Yield all of it, read at once."""
        lengths, width = self.lengths(rows), self._kept_width or 0
        sizes = lengths * width * np.dtype(self.dtype).itemsize
        contents = self._read(self._keys.rows[rows], sizes)
        # a buffer of its own, since what wants the vectors may want to write to them
        kept = np.frombuffer(bytearray().join(contents), self.dtype)
        yield kept.reshape(int(lengths.sum()), width)


def by_key(arrays: Mapping[str, NDArray[Any]], keys: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return arrays of ``Stores.incoming`` with the keys of token vectors in place of these."""
    kept = {name: array for name, array in arrays.items() if not name.startswith("colbert.")}
    if "colbert.vectors" in arrays:
        kept["colbert.keys"] = keys
        kept["colbert.lengths"] = np.diff(arrays["colbert.offsets"])
        kept["colbert.width"] = np.array(arrays["colbert.vectors"].shape[1:], np.int64)
    return kept
