"""Rows of different lengths, packed end to end instead of padded.

The encoder's token-level outputs live in these records: ``MultiVectors`` (ColBERT) and
``TokenTable`` (ids, spans, weights). ``offsets`` (n + 1,) says where each text's rows begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import InputError

Floats: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class MultiVectors:
    """One matrix of token vectors a text, packed end to end: no padding anywhere.

    vectors: (t, h) float16 or float32, the rows of all texts in order.
    offsets: (n + 1,) int64, ascending from 0 to t; text r owns rows
        ``offsets[r]:offsets[r + 1]``.

    Raises InputError where the two do not fit each other.

    >>> two = MultiVectors.from_rows([np.eye(2, dtype=np.float32), np.ones((1, 2), np.float32)])
    >>> len(two), two[1].tolist(), two.lengths.tolist()
    (2, [[1.0, 1.0]], [2, 1])
    """

    vectors: Floats
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.offsets.ndim != 1 or len(self.offsets) == 0:
            raise InputError(
                "MultiVectors expects vectors (t, h) and offsets (n + 1,), got shapes "
                f"{self.vectors.shape} and {self.offsets.shape}."
            )
        starts_right = self.offsets[0] == 0 and self.offsets[-1] == len(self.vectors)
        if not starts_right or np.any(np.diff(self.offsets) < 0):
            raise InputError(
                f"MultiVectors expects offsets ascending from 0 to {len(self.vectors)}, the number "
                f"of vectors, got {self.offsets[0]} to {self.offsets[-1]}."
            )

    @classmethod
    def from_rows(cls, rows: Sequence[Floats], *, dimension: int | None = None) -> MultiVectors:
        """Pack one (t_r, h) matrix a text; ``dimension`` is needed only for no rows at all."""
        if not rows:
            return cls(np.empty((0, dimension or 0), np.float32), np.zeros(1, np.int64))
        return cls(np.concatenate(rows), offsets_of([len(row) for row in rows]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Floats:
        """Return the (t_row, h) vectors of one text, a view."""
        row = range(len(self))[row]
        return self.vectors[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[Floats]:
        return (self[row] for row in range(len(self)))

    @property
    def dimension(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) number of vectors of each text."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.integer[Any]] | Sequence[int]) -> MultiVectors:
        """Return the given texts in the given order, copied."""
        rows = np.asarray(rows, dtype=np.int64)
        offsets = offsets_of(self.lengths[rows])
        # position of each packed row: its text's start plus its place within the text
        starts = np.repeat(self.offsets[rows] - offsets[:-1], np.diff(offsets))
        return MultiVectors(self.vectors[starts + np.arange(offsets[-1])], offsets)

    def astype(self, dtype: Literal["float16", "float32"]) -> MultiVectors:
        return replace(self, vectors=self.vectors.astype(dtype, copy=False))

    @classmethod
    def concatenate(cls, parts: Sequence[MultiVectors]) -> MultiVectors:
        """Join several packs, in order."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.vectors for part in parts]), offsets_of(lengths))


@dataclass(frozen=True, slots=True)
class TokenWeight:
    """One token of a text, by position, so that two tokens never share a key.

    id: vocabulary id; surface: the vocabulary's own spelling (``"▁hello"``);
    start, end: character span in the text, end exclusive; weight: the learned
    lexical weight at this position, before the maximum over equal ids, ≥ 0
    (0 where the model has no sparse head).
    """

    id: int
    surface: str
    start: int
    end: int
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class TokenTable:
    """The tokens of many texts, packed: ``table[r]`` lists text r's tokens.

    ids (t,), spans (t, 2), weights (t,), surfaces (t,), offsets (n + 1,). Special
    tokens that frame the text are left out.
    """

    ids: NDArray[np.int64]
    spans: NDArray[np.int64]
    weights: Floats
    surfaces: tuple[str, ...]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> list[TokenWeight]:
        row = range(len(self))[row]
        return [
            TokenWeight(
                int(self.ids[at]),
                self.surfaces[at],
                int(self.spans[at, 0]),
                int(self.spans[at, 1]),
                float(self.weights[at]),
            )
            for at in range(self.offsets[row], self.offsets[row + 1])
        ]

    def take(self, rows: NDArray[np.integer[Any]] | Sequence[int]) -> TokenTable:
        rows = np.asarray(rows, dtype=np.int64)
        at = [np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows]
        chosen = np.concatenate(at) if at else np.empty(0, np.int64)
        return TokenTable(
            self.ids[chosen],
            self.spans[chosen],
            self.weights[chosen],
            tuple(self.surfaces[position] for position in chosen),
            offsets_of([len(span) for span in at]),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[TokenTable]) -> TokenTable:
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.spans for part in parts]),
            np.concatenate([part.weights for part in parts]),
            tuple(surface for part in parts for surface in part.surfaces),
            offsets_of(np.concatenate([np.diff(part.offsets) for part in parts])),
        )


def offsets_of(lengths: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return (n + 1,) offsets of n packed rows with the given lengths.

    >>> offsets_of([2, 0, 1]).tolist()
    [0, 2, 2, 3]
    """
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
