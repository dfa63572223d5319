"""What a local index keeps of its documents, mode by mode: stores that hold the same rows.

Rows are numbers here, in order of appending. What a row is called, whether it was deleted
and whether a filter admits it is the index's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import check_k
from m3_retrievers.errors import InputError, MissingOutputError
from m3_retrievers.index.base import TermWeighting
from m3_retrievers.index.incoming import check_query, check_representations
from m3_retrievers.index.stores.chunks import Pieces
from m3_retrievers.index.stores.compressed import ColbertDtype, compressed
from m3_retrievers.index.stores.dense import DenseIndex
from m3_retrievers.index.stores.inverted import InvertedIndex, canonical
from m3_retrievers.index.stores.live import LiveRows
from m3_retrievers.index.stores.multivector import ColbertStore, MultiVectorIndex
from m3_retrievers.index.stores.pooling import pooled
from m3_retrievers.index.stores.weighted import WeightedIndex, csr_arrays, csr_of
from m3_retrievers.types.hits import Query
from m3_retrievers.types.packed import Floats, MultiVectors
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Arrays = Mapping[str, NDArray[Any]]


def as_outputs(modes: Sequence[str]) -> tuple[Output, ...]:
    """Return modes in their order; InputError for what an index does not store."""
    unknown = [mode for mode in modes if mode not in ALL_OUTPUTS]
    if isinstance(modes, str) or unknown:
        raise InputError(f"modes expects a list of some of {ALL_OUTPUTS}, got {modes!r}.")
    return tuple(mode for mode in ALL_OUTPUTS if mode in modes)


class Stores:
    """Dense, sparse and ColBERT representations and weighted terms of n rows.

    Not safe between threads; the owner keeps writers and readers apart.
    """

    def __init__(
        self,
        modes: Sequence[Output],
        *,
        weighting: TermWeighting | None = None,
        colbert_dtype: ColbertDtype = "float16",
        colbert_pool_factor: int = 1,
        colbert: ColbertStore | None = None,
    ) -> None:
        """Start without rows.

        colbert_pool_factor: as for ``pooling.pooled``, of what comes in. colbert: where token
        vectors are kept, None for memory.
        """
        check_k(colbert_pool_factor, name="colbert_pool_factor")
        self.colbert_pool_factor = colbert_pool_factor
        self.stored = as_outputs(modes)
        self.dense = DenseIndex()
        self.sparse = InvertedIndex()
        self.colbert: ColbertStore = (
            MultiVectorIndex(dtype=colbert_dtype) if colbert is None else colbert
        )
        self.weighted = None if weighting is None else WeightedIndex(weighting)
        self._widths: dict[str, int] = {}

    @property
    def modes(self) -> frozenset[Mode]:
        """The modes that can be scored."""
        named = () if self.weighting is None else (self.weighting.name,)
        return frozenset((*self.stored, *named))

    @property
    def weighting(self) -> TermWeighting | None:
        """The term weights that depend on the collection, such as BM25's."""
        return None if self.weighted is None else self.weighted.weighting

    # Rows in and out

    def check(self, representations: Representations, *, count: int) -> None:
        """Raise MissingOutputError or InputError for what could not be stored as ``count`` rows."""
        check_representations(representations, stored=self.stored, count=count, held=self._widths)

    def incoming(self, texts: Sequence[str], representations: Representations) -> Arrays:
        """Return representations that were checked, a row a text, as arrays for ``extend``.

        The weighting counts the texts, and so learns their terms.
        """
        arrays: dict[str, NDArray[Any]] = {}
        if "dense" in self.stored:
            arrays["dense.vectors"] = representations.require("dense").astype(np.float32)
        if "sparse" in self.stored:
            arrays |= csr_arrays("sparse", canonical(representations.require("sparse")))
        if "colbert" in self.stored:
            packed = self._pooled(representations)
            kept = compressed(packed.vectors, self.colbert.dtype)
            shared = np.may_share_memory(kept, packed.vectors)
            arrays["colbert.vectors"] = kept.copy() if shared else kept
            arrays["colbert.offsets"] = packed.offsets
        if self.weighted is not None:
            arrays |= csr_arrays("bm25", self.weighted.weighting.count(texts))
        return arrays

    def extend(self, arrays: Arrays, *, merge: bool = True) -> None:
        """Add the rows of ``arrays``, which the store of each mode has written, behind the others.

        The weighting knows the terms of their counts. merge: as for ``InvertedIndex.append``.
        """
        if "dense" in self.stored:
            self.dense.append(arrays["dense.vectors"])
            self._widths["dense"] = arrays["dense.vectors"].shape[1]
        if "sparse" in self.stored:
            self.sparse.append(csr_of("sparse", arrays), merge=merge)
            self._widths["sparse"] = int(arrays["sparse.shape"][1])
        if "colbert" in self.stored:
            self.colbert.extend(arrays)
            self._widths["colbert"] = self.colbert.width or 0
        if self.weighted is not None:
            self.weighted.append(csr_of("bm25", arrays))

    def vectors(self, rows: Rows, outputs: Sequence[Output]) -> Representations:
        """Return the representations of the given rows (r,), copied."""
        for name in outputs:
            if name not in self.stored:
                raise MissingOutputError(
                    f"This index stores {self.stored}, got {name!r}. Build it with that mode."
                )
        return Representations(
            dense=self.dense.take(rows) if "dense" in outputs else None,
            sparse=self.sparse.take(rows) if "sparse" in outputs else None,
            colbert=self.colbert.take(rows) if "colbert" in outputs else None,
        )

    def arrays(self, rows: Rows) -> tuple[dict[str, NDArray[Any] | Pieces], TermWeighting | None]:
        """Return all that is kept of the given rows as plain arrays, and their weighting.

        ``of_arrays`` reads them; vectors are views of what is kept. The weighting knows the
        terms of these rows alone.
        """
        arrays: dict[str, NDArray[Any] | Pieces] = {}
        if "dense" in self.stored:
            arrays["dense.vectors"] = self.dense.pieces(rows)
        if "sparse" in self.stored:
            arrays |= csr_arrays("sparse", self.sparse.take(rows))
        if "colbert" in self.stored:
            arrays |= self.colbert.arrays(rows)
        if self.weighted is None:
            return arrays, None
        weighted = self.weighted.keep(rows)
        return arrays | weighted.arrays(), weighted.weighting

    def rows(self, rows: Rows) -> dict[str, NDArray[Any]]:
        """Return dense and sparse representations of the given rows as plain arrays."""
        arrays: dict[str, NDArray[Any]] = {}
        if "dense" in self.stored:
            arrays["dense.vectors"] = self.dense.take(rows)
        if "sparse" in self.stored:
            arrays |= csr_arrays("sparse", self.sparse.take(rows))
        return arrays

    @classmethod
    def of_arrays(
        cls,
        arrays: Arrays,
        *,
        modes: Sequence[Output],
        weighting: TermWeighting | None,
        colbert_dtype: ColbertDtype,
        colbert_pool_factor: int = 1,
    ) -> Stores:
        """Return the rows that ``arrays`` took apart, numbered from 0; no rows take any width."""
        colbert = None
        if "colbert" in modes and len(arrays["colbert.offsets"]) > 1:
            colbert = MultiVectorIndex.of_arrays(arrays, dtype=colbert_dtype)
        stores = cls(
            modes,
            weighting=weighting,
            colbert_dtype=colbert_dtype,
            colbert_pool_factor=colbert_pool_factor,
            colbert=colbert,
        )
        if weighting is not None:
            stores.weighted = WeightedIndex(weighting, csr_of("bm25", arrays))
        stores._own(arrays)
        return stores

    def keep(self, rows: Rows) -> Stores:
        """Return stores of the given rows alone."""
        has_colbert = "colbert" in self.stored
        kept = Stores(
            self.stored,
            colbert_pool_factor=self.colbert_pool_factor,
            colbert=self.colbert.keep(rows if has_colbert else rows[:0]),
        )
        kept.weighted = None if self.weighted is None else self.weighted.keep(rows)
        kept._own(self.rows(rows))
        return kept

    def _pooled(self, representations: Representations) -> MultiVectors:
        return pooled(representations.require("colbert"), factor=self.colbert_pool_factor)

    def _own(self, arrays: Arrays) -> None:
        """Take the rows of dense and sparse arrays as the first ones, without a copy."""
        if "dense" in self.stored and len(arrays["dense.vectors"]):
            self.dense = DenseIndex(arrays["dense.vectors"])
            self._widths["dense"] = arrays["dense.vectors"].shape[1]
        if "sparse" in self.stored and len(arrays["sparse.indptr"]) > 1:
            self.sparse = InvertedIndex.from_matrix(csr_of("sparse", arrays))
            self._widths["sparse"] = int(arrays["sparse.shape"][1])
        if "colbert" in self.stored and self.colbert.width is not None:
            self._widths["colbert"] = self.colbert.width

    # Search and scores

    def fitted(self, *, live: LiveRows) -> TermWeighting | None:
        """Return the weighting with the statistics of the live rows."""
        return None if self.weighted is None else self.weighted.fitted(live=live)

    def search(
        self, query: Query, mode: Mode, *, k: int | None, admitted: Mask | None, live: LiveRows
    ) -> tuple[Rows, Floats]:
        """Return the k best admitted rows of one mode and their scores, best first, ties by row.

        k: None for all. admitted: mask (n,), None for every row. Lexical modes leave out rows
        that share no term.
        """
        self._check_query(query, mode)
        asked = query.representations
        if mode == "dense":
            return self.dense.search(asked.require("dense")[0], k=k, admitted=admitted)
        if mode == "sparse":
            return self.sparse.search(asked.require("sparse"), k=k, admitted=admitted)
        if mode == "colbert":
            return self.colbert.search(asked.require("colbert"), k=k, admitted=admitted)
        assert self.weighted is not None  # _check_query saw to it
        return self.weighted.search(query.text, k=k, live=live, admitted=admitted)

    def search_many(
        self,
        queries: Sequence[Query],
        mode: Mode,
        *,
        k: int | None,
        admitted: Mask | None,
        live: LiveRows,
    ) -> list[tuple[Rows, Floats]]:
        """Return what ``search`` does for each query; dense vectors are read once for all."""
        if mode != "dense" or len(queries) < 2:
            return [self.search(one, mode, k=k, admitted=admitted, live=live) for one in queries]
        for query in queries:
            self._check_query(query, mode)
        asked = [query.representations.require("dense")[0] for query in queries]
        return list(self.dense.search_many(np.stack(asked), k=k, admitted=admitted))

    def score(self, query: Query, mode: Mode, rows: Rows, *, live: LiveRows) -> Floats:
        """Return (r,) the scores of the given rows in one mode."""
        self._check_query(query, mode)
        asked = query.representations
        if mode == "dense":
            return self.dense.score(asked.require("dense")[0], rows)
        if mode == "sparse":
            return self.sparse.score(asked.require("sparse"), rows)
        if mode == "colbert":
            return self.colbert.score(asked.require("colbert"), rows)
        assert self.weighted is not None  # _check_query saw to it
        return self.weighted.score(query.text, rows, live=live)

    def scale(self, query: Query, mode: Mode, *, live: LiveRows) -> float:
        """Return the factor from a mode's score to the hybrid's range; 1 for M3's modes."""
        self._check_mode(mode)
        if mode in ALL_OUTPUTS or self.weighted is None:
            return 1.0
        return self.weighted.scale(query.text, live=live)

    # Checks

    def _check_query(self, query: Query, mode: Mode) -> None:
        """Raise for a mode there is not, and for a query that does not fit it."""
        self._check_mode(mode)
        if mode != "bm25":
            check_query(query, mode, held=self._widths)

    def _check_mode(self, mode: Mode) -> None:
        if mode not in self.modes:
            raise MissingOutputError(
                f"This index scores {sorted(self.modes)}, got {mode!r}. Build it with that mode."
            )
