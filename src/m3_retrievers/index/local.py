"""The index of one process: in memory, exact, updatable, saved to a folder."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import check_ids, check_k
from m3_retrievers.errors import DuplicateIdError, InputError, SavedIndexError
from m3_retrievers.index.base import Filter, TermWeighting
from m3_retrievers.index.dense import GrowingRows
from m3_retrievers.index.filters import FilteredRows
from m3_retrievers.index.multivector import ColbertDtype
from m3_retrievers.index.records import stored_record
from m3_retrievers.index.storage import read_generation, write_generation
from m3_retrievers.index.stores import STORED, Legs
from m3_retrievers.types.hits import Query, Ranking, Record
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import Output, Representations

# Deleted rows stay until there are this many and they outnumber the live ones, so that a
# delete costs nothing and memory stays below twice what the documents need.
_DEAD_ROWS_KEPT = 1_000


class LocalIndex:
    """Records with dense, sparse and ColBERT representations, and BM25 where it is wanted.

    modes: what is stored, of ``"dense"``, ``"sparse"``, ``"colbert"``. weighting: adds the mode
        of its name (``"bm25"``) over the records' texts. colbert_dtype: ``"float16"`` halves
        the memory and moves a score by less than 1e-3; ``"float32"`` keeps every bit.

    Safe to share between threads. Metadata is kept as JSON keeps it (a tuple comes back as a
    list), and comes out as a copy.
    """

    def __init__(
        self,
        *,
        modes: Sequence[Output] = STORED,
        weighting: TermWeighting | None = None,
        colbert_dtype: ColbertDtype = "float16",
    ) -> None:
        self._lock = threading.RLock()
        self._records: list[Record] = []
        self._row_of: dict[str, int] = {}
        self._alive = GrowingRows(np.empty(0, bool))
        self._filtered = FilteredRows()
        self._legs = Legs(modes, weighting=weighting, colbert_dtype=colbert_dtype)
        self.extra: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, id: object) -> bool:
        return id in self._row_of

    def __repr__(self) -> str:
        return f"LocalIndex(documents={len(self)}, modes={sorted(self.modes)})"

    def _repr_html_(self) -> str:
        told = {"documents": len(self), "modes": ", ".join(sorted(self.modes))}
        from m3_retrievers.display import markup

        return markup.facts("LocalIndex", told)

    @property
    def modes(self) -> frozenset[Mode]:
        """The modes it scores."""
        return self._legs.modes

    @property
    def weighting(self) -> TermWeighting | None:
        """The term weights that depend on the collection, such as BM25's."""
        return self._legs.weighting

    @property
    def colbert_dtype(self) -> ColbertDtype:
        """The precision of the stored token vectors."""
        return self._legs.colbert.dtype

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, in order of insertion."""
        with self._lock:
            return tuple(self._records[row].id for row in self._live())

    # Records in and out

    def add(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert new records; raises before anything is stored.

        representations: one row a record, with every output this index stores. Raises
        DuplicateIdError for an id given twice or known, MissingOutputError for an output that
        is not there, InputError for counts or widths that do not fit and metadata that is not
        JSON.
        """
        with self._lock:
            for record in records:
                if record.id in self._row_of:
                    raise DuplicateIdError(
                        f"add expects new ids, got {record.id!r}, which is in the index. "
                        "Use upsert to replace it, or another id."
                    )
            self._insert(records, representations)

    def upsert(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert records, replacing those whose id is known; they move to the end."""
        with self._lock:
            self._insert(records, representations)

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove records; returns the ids that were there."""
        check_ids(ids, name="delete")
        with self._lock:
            there = [id for id in dict.fromkeys(ids) if id in self._row_of]
            with self._changing():
                self._bury(there)
            return there

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return copies of the records in the order asked for, passing over unknown ids."""
        check_ids(ids, name="get")
        with self._lock:
            found = [self._records[self._row_of[id]] for id in ids if id in self._row_of]
        return [Record(r.id, r.text, copy.deepcopy(dict(r.metadata))) for r in found]

    def vectors(
        self, ids: Sequence[str], *, outputs: Sequence[Output] | None = None
    ) -> Representations:
        """Return the stored representations of the given records, a row an id, in that order.

        outputs: those wanted, None for all that are stored; ColBERT's come in the dtype they
        are kept in. Raises InputError for an unknown id, MissingOutputError for an output that
        is not stored.
        """
        check_ids(ids, name="vectors")
        with self._lock:
            wanted = self._legs.stored if outputs is None else outputs
            return self._legs.vectors(self._rows(ids), wanted)

    def in_order(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that are known, each once, in order of insertion."""
        check_ids(ids, name="in_order")
        with self._lock:
            rows = {self._row_of[id]: id for id in ids if id in self._row_of}
            return [rows[row] for row in sorted(rows)]

    # Recall and scores

    def recall(
        self, query: Query, mode: Mode, *, k: int | None, filter: Filter | None = None
    ) -> Ranking:
        """Return the k best records of one mode among those the filter admits.

        k: None ranks all of them. Lexical modes leave out records that share no term.
        """
        if k is not None:
            check_k(k)
        with self._lock:
            alive = self._alive.rows
            admitted = self._filtered.rows(filter, self._records, alive=alive)
            rows, scores = self._legs.search(query, mode, k=k, admitted=admitted, alive=alive)
            return Ranking(tuple(self._records[row].id for row in rows), scores)

    def score(self, query: Query, mode: Mode, ids: Sequence[str]) -> Floats:
        """Return (n,) scores of the given records; InputError for an unknown id."""
        check_ids(ids, name="score")
        with self._lock:
            return self._legs.score(query, mode, self._rows(ids), alive=self._alive.rows)

    def scale(self, query: Query, mode: Mode) -> float:
        """Return the factor from a mode's score to the hybrid's range; 1 for M3's modes."""
        with self._lock:
            return self._legs.scale(query, mode, alive=self._alive.rows)

    # On disk

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
            live = self._live()
            write_generation(
                folder,
                arrays=self._legs.arrays(live),
                documents=[self._records[row] for row in live],
                settings={
                    "modes": list(self._legs.stored),
                    "colbert_dtype": self.colbert_dtype,
                    "weighting": self.weighting and self.weighting.state(),
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
        index = cls()
        index._legs = Legs.of_arrays(
            saved.arrays,
            modes=settings["modes"],
            weighting=weighting(state) if state and weighting else None,
            colbert_dtype=settings["colbert_dtype"],
        )
        index._number(saved.records)
        index.extra = settings["extra"]
        return index

    # Inside; every caller holds the lock

    def _insert(self, records: Sequence[Record], representations: Representations) -> None:
        kept = [stored_record(record) for record in records]
        ids = [record.id for record in kept]
        twice = len(set(ids)) != len(ids)
        if twice:
            repeated = next(id for at, id in enumerate(ids) if id in ids[:at])
            raise DuplicateIdError(f"expected each id once in a call, got {repeated!r} twice.")
        if not kept:
            return
        self._legs.check(representations, count=len(kept))
        first = len(self._records)
        with self._changing():
            self._legs.append([record.text for record in kept], representations)
            self._records += kept
            self._alive.append(np.ones(len(kept), bool))
            self._bury([id for id in ids if id in self._row_of])
            self._row_of.update((id, first + at) for at, id in enumerate(ids))

    def _bury(self, ids: Sequence[str]) -> None:
        rows = np.array([self._row_of.pop(id) for id in ids], np.int64)
        self._alive.rows[rows] = False
        self._legs.delete(rows)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep every leg in step with the records, also after an error or a Ctrl-C in between.

        A change extends the legs before the records, so dropping what no live record owns
        leaves the index as it was before, or with the whole change.
        """
        done = False
        try:
            yield
            done = True
        finally:
            self._filtered.clear()
            dead = len(self._records) - len(self)
            if not done or dead > max(_DEAD_ROWS_KEPT, len(self)):
                self._compact()

    def _compact(self) -> None:
        """Build everything again from the live rows, in their order."""
        # of two live rows with one id, left by an upsert cut short, the later one counts
        rows = {self._records[row].id: row for row in self._live()}
        live = np.array(sorted(rows.values()), np.int64)
        self._legs = self._legs.keep(live)
        self._number([self._records[row] for row in live])

    def _number(self, records: list[Record]) -> None:
        """Take records as rows 0, 1, …, all of them alive."""
        self._records = records
        self._row_of = {record.id: row for row, record in enumerate(records)}
        self._alive = GrowingRows(np.ones(len(records), bool))

    def _rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        unknown = [id for id in ids if id not in self._row_of]
        if unknown:
            raise InputError(f"expected ids of the index, got {unknown[0]!r}.")
        return np.array([self._row_of[id] for id in ids], np.int64)

    def _live(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._alive.rows)
