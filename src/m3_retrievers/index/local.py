"""The index of one process: in memory, exact, updatable, saved to a folder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from m3_retrievers.checks import check_ids, check_k, check_new
from m3_retrievers.errors import SavedIndexError
from m3_retrievers.index import search as hybrid_search
from m3_retrievers.index.base import Encode, Filter, TermWeighting
from m3_retrievers.index.deleting import ids_to_delete
from m3_retrievers.index.locking import ForkSafeLock
from m3_retrievers.index.multivector import ColbertDtype
from m3_retrievers.index.records import check_records, stored_record
from m3_retrievers.index.storage import read_generation, write_generation
from m3_retrievers.index.stores import Stores
from m3_retrievers.index.table import Table
from m3_retrievers.types.hits import Query, Ranking, Record, SearchResult
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Mode, Plan
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations


class LocalIndex:
    """Records with dense, sparse and ColBERT representations, and BM25 where it is wanted.

    modes: what is stored, of ``"dense"``, ``"sparse"``, ``"colbert"``. weighting: adds the mode
        of its name (``"bm25"``) over the records' texts. colbert_dtype: ``"float16"`` halves
        the memory and moves a score by less than 1e-3; ``"float32"`` keeps every bit.

    Safe to share between threads; a copy or a pickle is an index of its own. Metadata is kept
    as JSON keeps it (a tuple comes back as a list), and comes out as a copy. Ties break by
    insertion order.
    """

    def __init__(
        self,
        *,
        modes: Sequence[Output] = ALL_OUTPUTS,
        weighting: TermWeighting | None = None,
        colbert_dtype: ColbertDtype = "float16",
    ) -> None:
        self._lock = ForkSafeLock()
        self._table = Table(Stores(modes, weighting=weighting, colbert_dtype=colbert_dtype))
        self.extra: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, id: object) -> bool:
        return id in self._table

    def __repr__(self) -> str:
        return f"LocalIndex(documents={len(self)}, modes={sorted(self.modes)})"

    def _repr_html_(self) -> str:
        from m3_retrievers.display import markup

        facts = {"documents": len(self), "modes": ", ".join(sorted(self.modes))}
        return markup.facts("LocalIndex", facts)

    @property
    def modes(self) -> frozenset[Mode]:
        """The modes it scores."""
        return self._table.stores.modes

    @property
    def weighting(self) -> TermWeighting | None:
        """The term weights that depend on the collection, such as BM25's, up to date."""
        with self._lock:
            return self._table.stores.fitted(live=self._table.live)

    @property
    def colbert_dtype(self) -> ColbertDtype:
        """The precision of the stored token vectors."""
        return self._table.stores.colbert.dtype

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, in order of insertion."""
        with self._lock:
            return self._table.ids(self._table.live.rows)

    def snapshot(self) -> AbstractContextManager[object]:
        """Return a context that keeps other threads' changes out."""
        return self._lock

    # Records in and out

    def add(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert new records; raises before anything is stored.

        representations: one row a record, with every output this index stores. Raises
        DuplicateIdError for an id given twice or known, MissingOutputError for an output that
        is not there, InputError for counts or widths that do not fit and metadata that is not
        JSON.
        """
        kept = [stored_record(record) for record in check_records(records)]
        with self._lock:
            check_new([record.id for record in kept], self._table)
            self._table.insert(kept, representations)

    def upsert(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert records, replacing those whose id is known; they move to the end."""
        kept = [stored_record(record) for record in check_records(records)]
        with self._lock:
            self._table.insert(kept, representations)

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None
    ) -> list[str]:
        """Remove the records of these ids that the filter admits; returns the ids removed.

        Unknown ids are passed over. Raises InputError where neither is given: nothing is
        emptied by an argument that was forgotten.
        """
        with self._lock:
            gone = ids_to_delete(self, ids, filter=filter)
            self._table.delete(gone)
            return gone

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return copies of the records in the order asked for, passing over unknown ids."""
        wanted = check_ids(ids, name="get")
        with self._lock:
            found = self._table.records(self._table.rows(self._table.known(wanted)))
        return [Record(r.id, r.text, copy.deepcopy(dict(r.metadata))) for r in found]

    def pages(self, *, filter: Filter | None = None, size: int = 1000) -> Iterator[list[Record]]:
        """Yield the records that a filter admits, ``size`` at a time, in order of insertion."""
        check_k(size, name="size")
        ids = self.where(filter)
        return (self.get(ids[at : at + size]) for at in range(0, len(ids), size))

    def where(self, filter: Filter | None) -> list[str]:
        """Return the ids of the records that a filter admits, in order of insertion."""
        with self._lock:
            admitted = self._table.admitted(filter)
            rows = self._table.live.rows if admitted is None else admitted.nonzero()[0]
            return list(self._table.ids(rows))

    def vectors(
        self, ids: Sequence[str], *, outputs: Sequence[Output] | None = None
    ) -> Representations:
        """Return the stored representations of the given records, a row an id, in that order.

        outputs: those wanted, None for all that are stored; ColBERT's come in the dtype they
        are kept in. Raises InputError for an unknown id, MissingOutputError for an output that
        is not stored.
        """
        wanted = check_ids(ids, name="vectors")
        with self._lock:
            stores = self._table.stores
            return stores.vectors(
                self._table.rows(wanted), stores.stored if outputs is None else outputs
            )

    def in_order(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that are known, each once, in order of insertion."""
        wanted = check_ids(ids, name="in_order")
        with self._lock:
            known = list(dict.fromkeys(self._table.known(wanted)))
            return [known[at] for at in self._table.rows(known).argsort()]

    # Recall, scores, search

    def recall(
        self,
        query: Query,
        mode: Mode,
        *,
        k: int | None,
        filter: Filter | None = None,
        ids: Collection[str] | None = None,
    ) -> Ranking:
        """Return the k best records of one mode among those that filter and ids admit.

        k: None ranks all of them. Lexical modes leave out records that share no term.
        """
        if k is not None:
            check_k(k)
        named = None if ids is None else check_ids(ids, name="recall")
        with self._lock:
            return self._table.recall(query, mode, k=k, filter=filter, ids=named)

    def score(self, query: Query, mode: Mode, ids: Sequence[str]) -> Floats:
        """Return (n,) scores of the given records; InputError for an unknown id."""
        wanted = check_ids(ids, name="score")
        with self._lock:
            return self._table.score(query, mode, wanted)

    def scale(self, query: Query, mode: Mode) -> float:
        """Return the factor from a mode's score to the hybrid's range; 1 for M3's modes."""
        with self._lock:
            return self._table.stores.scale(query, mode, live=self._table.live)

    def search(
        self,
        query: Query,
        plan: Plan,
        *,
        k: int,
        filter: Filter | None = None,
        ids: Collection[str] | None = None,
        encode: Encode | None = None,
    ) -> SearchResult:
        """Return the k best hits of the whole hybrid search; see ``index.search.search``."""
        return hybrid_search.search(self, query, plan, k=k, filter=filter, ids=ids, encode=encode)

    # On disk, and in other processes

    def save(
        self,
        folder: str | Path,
        *,
        model: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the live records to a folder; see ``index.storage`` for how it is kept safe.

        model: ``{"name", "fingerprint"}`` of the model that made the representations. extra: JSON
        of the caller's, handed back as ``LocalIndex.extra``.
        """
        with self._lock:
            stores, live = self._table.stores, self._table.live.rows
            arrays, weighting = stores.arrays(live)
            write_generation(
                folder,
                arrays=arrays,
                documents=self._table.records(live),
                settings={
                    "modes": list(stores.stored),
                    "colbert_dtype": self.colbert_dtype,
                    "weighting": weighting and weighting.state(),
                    "extra": dict(self.extra if extra is None else extra),
                },
                model=model,
            )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        model: Mapping[str, Any] | None = None,
        weighting: Callable[[Mapping[str, Any]], TermWeighting] | None = None,
    ) -> LocalIndex:
        """Return the index saved in a folder; every recall and score is as it was.

        model: the model in use; another than the saved one is an IndexModelError. weighting:
        makes the saved weighting again from its state (``BM25.from_state``).
        """
        saved = read_generation(folder, model=model)
        settings, state = saved.settings, saved.settings["weighting"]
        if state is not None and weighting is None:
            raise SavedIndexError(
                f"The index in {str(folder)!r} has a {state.get('name', 'BM25')} leg: load it with "
                "weighting=BM25.from_state, or through HybridRetriever.load."
            )
        stores = Stores.of_arrays(
            saved.arrays,
            modes=settings["modes"],
            weighting=weighting(state) if state and weighting else None,
            colbert_dtype=settings["colbert_dtype"],
        )
        index = cls()
        index._table = Table(stores, saved.records)
        index.extra = settings["extra"]
        return index

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock out; what it guards is copied in one state."""
        with self._lock:
            return {"table": copy.deepcopy(self._table), "extra": copy.deepcopy(self.extra)}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._lock = ForkSafeLock()
        self._table, self.extra = state["table"], state["extra"]
