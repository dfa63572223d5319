"""Terms to columns, and lists of terms to a matrix of counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

# Texts whose terms are there as strings at the same time.
_TEXTS_AT_ONCE = 1_024


class Vocabulary(dict[str, int]):
    """The column of each term; looking up a new term gives it the next column.

    >>> vocabulary = Vocabulary.of(["fox"])
    >>> vocabulary["red"], vocabulary["fox"], vocabulary.get("wolf"), list(vocabulary)
    (1, 0, None, ['fox', 'red'])
    """

    @classmethod
    def of(cls, terms: Iterable[str]) -> Vocabulary:
        """Return a vocabulary of different terms, by column."""
        return cls((term, column) for column, term in enumerate(terms))

    def __missing__(self, term: str) -> int:
        column = self[term] = len(self)
        return column


def counted(rows: Iterable[list[str]], vocabulary: Mapping[str, int]) -> sp.csr_array:
    """Return float64 (n, v): how often each row has each term of the vocabulary, which may grow.

    >>> counted([["red", "red", "fox"], []], Vocabulary()).toarray().tolist()
    [[2.0, 1.0], [0.0, 0.0]]
    """
    parts, lengths = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for some in _batches(rows):
        lengths.append(np.fromiter(map(len, some), np.int64, len(some)))
        found = map(vocabulary.__getitem__, chain.from_iterable(some))
        parts.append(np.fromiter(found, np.int64, int(lengths[-1].sum())))
    return _matrix(np.concatenate(parts), np.concatenate(lengths), width=len(vocabulary))


def _matrix(columns: NDArray[np.int64], lengths: NDArray[np.int64], *, width: int) -> sp.csr_array:
    # one sort of all by row and column takes a fifth of the time of a sort for each row
    places = np.repeat(np.arange(len(lengths)) * width, lengths) + columns
    different, counts = np.unique(places, return_counts=True)
    owners, kept = np.divmod(different, max(1, width))
    offsets = np.searchsorted(owners, np.arange(len(lengths) + 1))
    shape = (len(lengths), width)
    matrix = sp.csr_array((counts.astype(np.float64), kept, offsets), shape=shape)
    matrix.has_canonical_format = True
    return matrix


def _batches(rows: Iterable[list[str]]) -> Iterator[list[list[str]]]:
    waiting = iter(rows)
    while some := list(islice(waiting, _TEXTS_AT_ONCE)):
        yield some
