"""The index of one process: in memory, exact, updatable, saved to a folder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from m3_retrievers.checks import check_new
from m3_retrievers.errors import InputError, SavedIndexError
from m3_retrievers.index.base import Filter, TermWeighting
from m3_retrievers.index.checking import check_saved
from m3_retrievers.index.deleting import ids_to_delete
from m3_retrievers.index.locking import ForkSafeLock, SharedLock
from m3_retrievers.index.records import check_records, stored_record
from m3_retrievers.index.snapshot.storage import corrupt, read_generation, write_generation
from m3_retrievers.index.stores.compressed import ColbertDtype
from m3_retrievers.index.stores.stores import Stores
from m3_retrievers.index.table import Table
from m3_retrievers.index.tabled import TableIndex
from m3_retrievers.types.hits import Record
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations


class LocalIndex(TableIndex):
    """Records with dense, sparse and ColBERT representations, and BM25 where it is wanted.

    modes: what is stored, of ``"dense"``, ``"sparse"``, ``"colbert"``. weighting: adds the mode
        of its name (``"bm25"``) over the records' texts. colbert_dtype: ``"float16"`` halves
        the memory and moves a score by less than 1e-3; ``"int8"``, with a scale a vector, halves
        it again; ``"float32"`` keeps every bit. colbert_pool_factor: of so many token vectors
        of a document one is kept, the mean of those that lie together; 1 keeps all.

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
        colbert_pool_factor: int = 1,
    ) -> None:
        self._writing, self._lock = ForkSafeLock(), SharedLock()
        stores = Stores(
            modes,
            weighting=weighting,
            colbert_dtype=colbert_dtype,
            colbert_pool_factor=colbert_pool_factor,
        )
        self._table = Table(stores)
        self.extra: dict[str, Any] = {}
        self.model: dict[str, Any] = {}  # as it was saved with the index

    @contextmanager
    def snapshot(self) -> Iterator[Table]:
        """Return a context that keeps other threads' changes out, and lets their searches in."""
        with self._lock.reading():
            yield self._table

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Keep other threads from preparing a change; searches go on."""
        # whoever has the turn may be waiting for this thread's snapshot to end
        if not self._writing.acquire(wait=not self._lock.is_reading):
            raise InputError(
                "A change, copy or save inside snapshot() expects that no other thread makes one "
                "at the same time. Leave the snapshot first."
            )
        try:
            yield
        finally:
            self._writing.release()

    # Records in and out

    def add(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert new records; raises before anything is stored.

        representations: one row a record, with every output this index stores. Raises
        DuplicateIdError for an id given twice or known, MissingOutputError for an output that
        is not there, InputError for counts or widths that do not fit and metadata that is not
        JSON.
        """
        kept = [stored_record(record) for record in check_records(records)]
        with self._turn():
            check_new([record.id for record in kept], self._table)
            self._put(kept, representations)

    def upsert(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert records, replacing those whose id is known; they move to the end."""
        kept = [stored_record(record) for record in check_records(records)]
        with self._turn():
            self._put(kept, representations)

    def _put(self, records: Sequence[Record], representations: Representations) -> None:
        """Append records in place of those with the same ids; searches wait for no computation."""
        if not records:
            return
        arrays = self._table.incoming(records, representations)
        with self._lock.writing():
            self._table.extend(records, arrays, merge=False)
        postings = self._table.stores.sparse
        segments = postings.merged()
        with self._lock.writing():
            postings.adopt(segments)

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None
    ) -> list[str]:
        """Remove the records of these ids that the filter admits; returns the ids removed.

        Unknown ids are passed over. Raises InputError where neither is given: nothing is
        emptied by an argument that was forgotten.
        """
        with self._turn(), self._lock.writing():
            gone = ids_to_delete(self, ids, filter=filter)
            self._table.delete(gone)
            return gone

    # On disk, and in other processes

    def save(
        self,
        folder: str | Path,
        *,
        model: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the live records to a folder; see ``index.snapshot``.

        model: ``{"name", "fingerprint"}`` of the model that made the representations, and its
        ``"precision"`` where that is known, handed back as ``LocalIndex.model``. extra: JSON of
        the caller's, handed back as ``LocalIndex.extra``.
        """
        with self._turn(), self._lock.reading():
            stores, live = self._table.stores, self._table.live.rows
            arrays, weighting = stores.arrays(live)
            write_generation(
                folder,
                arrays=arrays,
                documents=self._table.records(live),
                settings={
                    "modes": list(stores.stored),
                    "colbert_dtype": self.colbert_dtype,
                    "colbert_pool_factor": stores.colbert_pool_factor,
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
        verify: bool = False,
    ) -> LocalIndex:
        """Return the index saved in a folder; every recall and score is as it was.

        Token vectors of 64 MiB and more stay in their file, and are compared with their digests
        as they are read. model: the model in use; another than the saved one is an
        IndexModelError. weighting: makes the saved weighting again from its state
        (``BM25.from_state``). verify: whether all token vectors are compared now.
        """
        saved = read_generation(folder, model=model, verify=verify)
        try:
            check_saved(saved.arrays, saved.records, saved.settings)
        except ValueError as error:
            raise corrupt(folder, error) from error
        settings, state = saved.settings, saved.settings["weighting"]
        if state is not None and weighting is None:
            raise SavedIndexError(
                f"The index in {str(folder)!r} has a {state.get('name', 'BM25')} leg: load it with "
                "weighting=BM25.from_state, or through HybridRetriever.load."
            )
        try:
            restored = weighting(state) if state is not None and weighting else None
        except (KeyError, TypeError, AttributeError, InputError) as error:
            raise corrupt(folder, f"its weighting cannot be made again ({error})") from error
        stores = Stores.of_arrays(
            saved.arrays,
            modes=settings["modes"],
            weighting=restored,
            colbert_dtype=settings["colbert_dtype"],
            # saved by a version without pooling: 1
            colbert_pool_factor=settings.get("colbert_pool_factor", 1),
        )
        index = cls()
        index._table = Table(stores, saved.records)
        index.extra, index.model = settings["extra"], saved.model or {}
        return index

    def __getstate__(self) -> dict[str, Any]:
        """Leave the locks out; what they guard is copied in one state."""
        with self._turn(), self._lock.reading():
            names = {"table": self._table, "extra": self.extra, "model": self.model}
            return {name: copy.deepcopy(value) for name, value in names.items()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._writing, self._lock = ForkSafeLock(), SharedLock()
        self._table, self.extra, self.model = state["table"], state["extra"], state["model"]
