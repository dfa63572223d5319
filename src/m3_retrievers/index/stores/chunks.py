"""Rows that grow at their end: small ones in one buffer, large ones in chunks that never move."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.integer[Any]]

# One buffer that doubles stops an index of 100,000 documents for 7.8 s now and then; a chunk of
# 16 MiB is there at once, and what of it is not written yet takes no memory.
_BYTES = 1 << 24


class GrowingRows:
    """A matrix that grows at its end; appending n rows one by one copies O(n) rows in all."""

    def __init__(self, rows: NDArray[Any]) -> None:
        """Start with the given rows (n, h), which are not copied and not changed."""
        self._buffer = rows
        self._used = len(rows)

    def __len__(self) -> int:
        return self._used

    @property
    def rows(self) -> NDArray[Any]:
        """The (n, h) rows so far, a view."""
        return self._buffer[: self._used]

    def append(self, rows: NDArray[Any]) -> None:
        """Copy rows (m, h) behind the others, in the matrix's own dtype."""
        needed = self._used + len(rows)
        if needed > len(self._buffer):
            # pages of the new buffer that are not written yet cost no memory
            grown = np.empty((max(needed, 2 * self._used), *self._buffer.shape[1:]), self.dtype)
            grown[: self._used] = self.rows
            self._buffer = grown
        self._buffer[self._used : needed] = rows
        self._used = needed

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._buffer.dtype


class Chunks:
    """A matrix (n, h) that grows at its end, in pieces that stay where they are.

    >>> rows = Chunks(np.eye(2))
    >>> rows.append(np.array([[3.0, 4.0]]))
    >>> len(rows), rows.take(np.array([2, 0])).tolist()
    (3, [[3.0, 4.0], [1.0, 0.0]])
    >>> [part.tolist() for part in rows.between(1, 3)]
    [[[0.0, 1.0]], [[3.0, 4.0]]]
    """

    def __init__(self, rows: NDArray[Any]) -> None:
        """Start with the given rows (n, h), which are not copied and not changed."""
        self._parts = [rows]
        self._ends = [len(rows)]
        self._capacity = max(1, _BYTES // max(1, rows.itemsize * rows.shape[1]))

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def width(self) -> int:
        """The rows' width h."""
        return int(self._parts[0].shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The rows' dtype."""
        return self._parts[0].dtype

    @property
    def parts(self) -> list[NDArray[Any]]:
        """The pieces (·, h) in order, views."""
        starts = [0, *self._ends[:-1]]
        spans = zip(self._parts, starts, self._ends, strict=True)
        return [part[: end - start] for part, start, end in spans]

    def adopt(self, rows: NDArray[Any]) -> None:
        """Take rows (m, h) of the matrix's dtype behind the others, which nobody else changes.

        Many become a piece of their own, without a copy.
        """
        if rows.nbytes < self._capacity * rows.itemsize * self.width // 4:
            self.append(rows)
            return
        used = self._ends[-1] - self._first(len(self._parts) - 1)
        if used < len(self._parts[-1]):
            self._parts[-1] = self._parts[-1][:used]
        self._parts.append(rows)
        self._ends.append(self._ends[-1] + len(rows))

    def append(self, rows: NDArray[Any]) -> None:
        """Copy rows (m, h) behind the others, in the matrix's own dtype."""
        done = 0
        while done < len(rows):
            used = self._ends[-1] - self._first(len(self._parts) - 1)
            # what it started with is full: it is not to be changed
            room = len(self._parts[-1]) - used
            if not room:
                # as many rows as there are: a small index stays small
                size = min(self._capacity, max(len(self), len(rows) - done))
                self._parts.append(np.empty((size, self.width), self.dtype))
                self._ends.append(self._ends[-1])
                continue
            taken = min(room, len(rows) - done)
            self._parts[-1][used : used + taken] = rows[done : done + taken]
            self._ends[-1] += taken
            done += taken

    def between(self, first: int, last: int) -> Iterator[NDArray[Any]]:
        """Yield rows ``first`` to ``last`` as views, one a piece that holds some of them."""
        at = bisect_right(self._ends, first)
        while first < last:
            # what stays in a file is read a chunk at a time
            start, end = self._first(at), min(last, self._ends[at], first + self._capacity)
            yield self._parts[at][first - start : end - start]
            first, at = end, at + (end == self._ends[at])

    def take(self, rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Return the given rows (r, h) in the order given, copied."""
        if len(self._parts) == 1:
            return np.asarray(self._parts[0][rows])
        taken = np.empty((len(rows), self.width), self.dtype)
        places = np.searchsorted(self._ends, rows, side="right")
        for at in np.unique(places).tolist():
            here = np.flatnonzero(places == at)
            taken[here] = self._parts[at][rows[here] - self._first(at)]
        return taken

    def spans(
        self, firsts: NDArray[np.integer[Any]], lasts: NDArray[np.integer[Any]]
    ) -> Iterator[NDArray[Any]]:
        """Yield rows ``firsts[n]`` to ``lasts[n]`` of each n as views, together where they adjoin.

        >>> list(map(len, Chunks(np.eye(4)).spans(np.array([0, 1, 3]), np.array([1, 3, 4]))))
        [4]
        """
        if not len(firsts):
            return
        cuts = np.flatnonzero(firsts[1:] != lasts[:-1])
        starts = firsts[np.concatenate([[0], cuts + 1])]
        ends = lasts[np.append(cuts, len(lasts) - 1)].tolist()
        places = np.searchsorted(self._ends, starts, side="right").tolist()
        for first, last, at in zip(starts.tolist(), ends, places, strict=True):
            if first == last:
                continue
            if last <= min(first + self._capacity, self._ends[at]):  # most lie in one piece
                start = self._first(at)
                yield self._parts[at][first - start : last - start]
            else:
                yield from self.between(first, last)

    def placed(self, firsts: Rows, lasts: Rows) -> Iterator[tuple[NDArray[Any], Rows, Rows, Rows]]:
        """Yield a piece, where in it rows ``firsts[n]`` to ``lasts[n]`` lie, and of which n.

        What lies in several pieces comes with each of them; what is empty does not come.
        """
        wanted = np.flatnonzero(firsts < lasts)
        while len(wanted):
            places = np.searchsorted(self._ends, firsts[wanted], side="right")
            order = np.argsort(places, kind="stable")
            cuts = np.flatnonzero(np.diff(places[order])) + 1
            for some in np.split(order, cuts):
                at, which = int(places[some[0]]), wanted[some]
                start = self._first(at)
                lasts_here = np.minimum(lasts[which], self._ends[at]) - start
                yield from _arrays(self._parts[at], firsts[which] - start, lasts_here, which)
            # the rest of what goes on in the next piece
            ends = np.asarray(self._ends)[places]
            firsts = firsts.copy()
            firsts[wanted] = ends
            wanted = wanted[lasts[wanted] > ends]

    def pieces(self, firsts: NDArray[np.integer[Any]], lasts: NDArray[np.integer[Any]]) -> Pieces:
        """Return ``spans`` as one array that is not put together."""
        spans = _Spans(self, firsts, lasts)
        count = int((lasts - firsts).sum())
        return Pieces(spans, rows=count, width=self.width, dtype=self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is not written yet."""
        return {**self.__dict__, "_parts": self.parts, "_ends": list(self._ends)}

    def _first(self, at: int) -> int:
        """Return the number of a piece's first row."""
        return self._ends[at - 1] if at else 0


def _arrays(
    part: NDArray[Any], firsts: Rows, lasts: Rows, which: Rows
) -> Iterator[tuple[NDArray[Any], Rows, Rows, Rows]]:
    """Yield a piece and its spans; of a piece in a file each span, as it is read."""
    if isinstance(part, np.ndarray):
        yield part, firsts, lasts, which
        return
    for first, last, number in zip(firsts.tolist(), lasts.tolist(), which.tolist(), strict=True):
        yield part[first:last], np.array([0]), np.array([last - first]), np.array([number])


@dataclass(frozen=True, slots=True, eq=False)
class _Spans:
    """``Chunks.spans``, as often as they are asked for."""

    rows: Chunks
    firsts: NDArray[np.integer[Any]]
    lasts: NDArray[np.integer[Any]]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return self.rows.spans(self.firsts, self.lasts)


class Pieces:
    """An array (n, h) that was not put together: parts (·, h) that belong behind each other.

    What writes it goes over ``parts`` and needs no copy of the whole; ``np.asarray`` makes one.
    """

    def __init__(
        self, parts: Iterable[NDArray[Any]], *, rows: int, width: int, dtype: np.dtype[Any]
    ) -> None:
        self.parts = parts
        self.dtype = dtype
        self.shape = (rows, width)
        self.nbytes = rows * width * dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole, done = np.empty(self.shape, self.dtype), 0
        for part in self.parts:
            whole[done : done + len(part)] = part
            done += len(part)
        return whole.astype(dtype or self.dtype, copy=False)
