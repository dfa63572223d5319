"""From forward passes, in any order, back to one row a text in the caller's order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers.encoder.forward import Pass
from m3_retrievers.encoder.pieces import Piece, Tokens
from m3_retrievers.types.packed import MultiVectors, TokenTable, offsets_of
from m3_retrievers.types.representations import Output, Representations

# Bytes of a text's share from which on threads are worth waking.
_LARGE = 1 << 16


class Arrivals:
    """Brings results from their device to a Collector, while the next batch is computed.

    ``finish`` brings what is still on its way.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._waiting: tuple[NDArray[np.int64], Pass, torch.cuda.Event] | None = None

    def put(self, rows: NDArray[np.int64], result: Pass) -> None:
        """Take the result of the pieces ``rows``; it is not used by the caller again."""
        if result.device_type != "cuda":
            self._collector.put(rows, result)
            return
        moved = result.to_processor()  # into pages that the device writes by itself
        done: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        self.finish()
        self._waiting = rows, moved, done

    def finish(self) -> None:
        if self._waiting is not None:
            rows, result, done = self._waiting
            done.synchronize()
            self._collector.put(rows, result)
            self._waiting = None


class Collector:
    """Takes the passes' outputs, each straight to its final place.

    Several pieces of one text (windows) become one row: dense is the normalised mean of
    the pieces' vectors, sparse the maximum of each term, as within a piece, and ColBERT
    keeps the vectors of all pieces. A text of unknown tokens alone matches nothing: its dense
    row is 0, and it has neither terms nor vectors, so that each of its scores is 0.

    without_vector: how many tokens of a piece, besides its CLS, have no ColBERT vector.
    """

    def __init__(self, pieces: Sequence[Piece], *, texts: int, without_vector: int = 0) -> None:
        self._pieces = pieces
        self._texts = texts
        self._ends = offsets_of([len(piece.ids) for piece in pieces])
        self._vector_ends = offsets_of(
            [len(piece.ids) - len(piece.cls_places) - without_vector for piece in pieces]
        )
        self._owner = np.array([piece.text for piece in pieces], np.int64)
        self._dense: NDArray[np.float32] | None = None
        self._weights: NDArray[np.float32] | None = None
        self._vectors: NDArray[np.float32] | None = None

    def put(self, rows: NDArray[np.int64], result: Pass) -> None:
        """Store the result of the pieces ``rows``; called again for a row, it overwrites."""
        if result.dense is not None:
            dense = result.dense.cpu().numpy()
            if self._dense is None:
                self._dense = np.empty((len(self._pieces), dense.shape[1]), np.float32)
            self._dense[rows] = dense
        if result.weights is not None:
            if self._weights is None:
                self._weights = np.empty(self._ends[-1], np.float32)
            _spread(self._weights, self._ends, rows, result.weights.cpu().numpy())
        if result.vectors is not None:
            vectors = result.vectors.cpu().numpy()
            if self._vectors is None:
                self._vectors = np.empty((self._vector_ends[-1], vectors.shape[1]), np.float32)
            _spread(self._vectors, self._vector_ends, rows, vectors)

    def representations(
        self,
        outputs: Sequence[Output],
        *,
        tokens: Sequence[Tokens],
        unread: NDArray[np.bool_],
        dropped_ids: Sequence[int],
        vocabulary_size: int,
    ) -> Representations:
        """Return the finished record, when every piece has been put.

        unread: (n,) True for the texts that hold nothing the model can read.
        """
        dense = self._pooled_windows() if "dense" in outputs else None
        if dense is not None and unread.any():
            dense[unread] = 0
        sparse = None
        if "sparse" in outputs:
            sparse = self._sparse(unread, dropped_ids, vocabulary_size)
        return Representations(
            dense=dense,
            sparse=sparse,
            colbert=self._multi_vectors(unread) if "colbert" in outputs else None,
            tokens=self._token_table(tokens) if "tokens" in outputs else None,
        )

    def _pooled_windows(self) -> NDArray[np.float32]:
        assert self._dense is not None
        if len(self._pieces) == self._texts:
            return self._dense
        pooled = np.zeros((self._texts, self._dense.shape[1]), np.float32)
        np.add.at(pooled, self._owner, self._dense)
        # opposite windows could cancel to 0; a zero vector is then the honest answer
        lengths = np.linalg.norm(pooled, axis=1, keepdims=True)
        np.divide(pooled, lengths, out=pooled, where=lengths > 0)
        return pooled

    def _sparse(
        self, unread: NDArray[np.bool_], dropped_ids: Sequence[int], vocabulary_size: int
    ) -> sp.csr_array:
        assert self._weights is not None
        ids = np.concatenate([piece.ids for piece in self._pieces])
        rows = np.repeat(self._owner, np.diff(self._ends))
        keep = (self._weights > 0) & ~np.isin(ids, dropped_ids) & ~unread[rows]
        return _largest(rows[keep], ids[keep], self._weights[keep], (self._texts, vocabulary_size))

    def _multi_vectors(self, unread: NDArray[np.bool_]) -> MultiVectors:
        assert self._vectors is not None
        sizes, vectors = np.diff(self._vector_ends), self._vectors
        if unread.any():
            kept = ~unread[self._owner]
            vectors = vectors[np.repeat(kept, sizes)]
            sizes = sizes * kept
        lengths = np.zeros(self._texts, np.int64)
        np.add.at(lengths, self._owner, sizes)
        return MultiVectors(vectors, offsets_of(lengths))

    def _token_table(self, tokens: Sequence[Tokens]) -> TokenTable:
        kept: list[slice] = [slice(0, 0)] * self._texts
        for piece in self._pieces:
            kept[piece.text] = slice(0, piece.stop)  # pieces of a text come in order
        weights = [np.zeros(part.stop, np.float32) for part in kept]
        if self._weights is not None:
            for position, piece in enumerate(self._pieces):
                inner = self._weights[self._ends[position] : self._ends[position + 1]]
                content = np.delete(inner, piece.cls_places)[: piece.stop - piece.start]
                weights[piece.text][piece.start : piece.stop] = content
        chosen = list(zip(tokens, kept, strict=True))
        return TokenTable(
            ids=np.concatenate([one.ids[part] for one, part in chosen]),
            spans=np.concatenate(
                [one.spans[part] for one, part in chosen if one.spans is not None]
            ),
            weights=np.concatenate(weights),
            surfaces=tuple(s for one, part in chosen for s in one.surfaces[part]),
            offsets=offsets_of([part.stop for part in kept]),
        )


def _spread(
    target: NDArray[Any], ends: NDArray[np.int64], rows: NDArray[np.int64], values: NDArray[Any]
) -> None:
    """Copy packed values of the given rows to their places in a packed target."""
    start = 0
    # PyTorch copies a large text's vectors with all threads, NumPy a small one's sooner
    large = values.nbytes >= _LARGE * len(rows)
    to: Any = torch.from_numpy(target) if large else target
    given: Any = torch.from_numpy(values) if large else values
    for first, last in zip(ends[rows].tolist(), ends[rows + 1].tolist(), strict=True):
        to[first:last] = given[start : start + last - first]
        start += last - first


def _largest(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    values: NDArray[np.float32],
    shape: tuple[int, int],
) -> sp.csr_array:
    """Return CSR with the largest value of each (row, column); columns ascend within a row."""
    order = np.lexsort((columns, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    first = np.ones(len(rows), bool)
    first[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    starts = np.flatnonzero(first)
    largest = np.maximum.reduceat(values, starts) if len(starts) else values
    indptr = np.searchsorted(rows[starts], np.arange(shape[0] + 1))
    return sp.csr_array((largest, columns[starts], indptr), shape=shape)
