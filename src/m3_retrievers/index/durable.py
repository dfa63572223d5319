"""The index in one file: what a change returned from is on the disk.

The file is the truth, and memory follows it. A change is checked, written and committed before
it is made in memory; a call that reads first makes in memory what other processes committed
since. Records, dense vectors and postings are in memory, so that every answer is computed as
``LocalIndex`` computes it, to the same bits; ColBERT vectors stay in the file where they may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import check_new
from m3_retrievers.errors import InputError, SavedIndexError
from m3_retrievers.index import durable_writing as writing
from m3_retrievers.index.base import Filter, TermWeighting
from m3_retrievers.index.compressed import ColbertDtype, kept_width
from m3_retrievers.index.deleting import ids_to_delete
from m3_retrievers.index.disk_vectors import DiskVectors, by_key
from m3_retrievers.index.durable_file import Counters, digest_sum
from m3_retrievers.index.durable_opening import (
    Colbert,
    Options,
    Restore,
    database_of,
    made,
    modes_of,
    restore_of,
)
from m3_retrievers.index.durable_reading import Layout, pieces
from m3_retrievers.index.locking import ForkSafeLock
from m3_retrievers.index.manifest import check_model
from m3_retrievers.index.records import check_records, stored_record
from m3_retrievers.index.stores import Stores
from m3_retrievers.index.table import Table, check_distinct, too_many_dead
from m3_retrievers.index.tabled import TableIndex
from m3_retrievers.types.hits import Record
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import Output, Representations


class DurableIndex(TableIndex):
    """The documents of one SQLite file, made if it is not there, and in memory what finds them.

    modes: what is kept, of ``"dense"``, ``"sparse"``, ``"colbert"``; None keeps all. weighting:
        adds the mode of its name (``"bm25"``). restore: makes the weighting again from its
        state; None is its class's ``from_state``. colbert: ``"disk"`` (None) reads the token
        vectors of those documents alone that are scored, ``"memory"`` holds all of them,
        ``"recompute"`` keeps none, so that a HybridRetriever encodes the candidates.
        colbert_dtype, colbert_pool_factor: as for LocalIndex; None is ``"float16"`` and 1.
        timeout: seconds to wait for another process that is writing. Of a file that is there
        its own options count.

    What ``add``, ``upsert`` and ``delete`` returned from survives the process and the machine.
    Several processes may have it open: one writes at a time, the others read meanwhile and see
    at their next call what was committed. Safe between threads, and in the child of a fork.

    Raises IndexCorruptError for a file that is torn or changed, IndexLockedError where another
    process keeps it past the time-out, SavedIndexError for a file of something else, one of a
    newer version, or a disk that is full or read-only; InputError for options that the file
    was not made with.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        modes: Sequence[Output] | None = None,
        weighting: TermWeighting | None = None,
        restore: Restore | None = None,
        colbert: Colbert | None = None,
        colbert_dtype: ColbertDtype | None = None,
        colbert_pool_factor: int | None = None,
        timeout: float = 10.0,
    ) -> None:
        options = Options(modes, weighting, restore, colbert, colbert_dtype, colbert_pool_factor)
        self._db = database_of(path, timeout=timeout)
        self._lock = ForkSafeLock(before_fork=self._db.disconnect)
        with self._lock:
            self._file, self._settings = made(self._db, options)
        self._restore = restore_of(options)
        self._on_disk = colbert != "memory"
        # where the file stood when memory last followed it; None where memory may be half done
        self._held: Counters | None = None
        self._table: Table
        with self.snapshot():
            pass  # damage shows at once, and not at the first search

    @property
    def place(self) -> str:
        """The path of the file."""
        return str(self._db.path)

    @property
    def modes(self) -> frozenset[Mode]:
        """The modes it scores."""
        return modes_of(self._settings)

    @property
    def colbert_dtype(self) -> ColbertDtype:
        """The precision of the stored token vectors."""
        dtype: ColbertDtype = self._settings["colbert_dtype"]
        return dtype

    def __repr__(self) -> str:
        return f"DurableIndex({self.place!r}, modes={sorted(self.modes)})"

    def _facts(self) -> dict[str, Any]:
        return {"place": self.place, **super()._facts()}

    # One state of the file, in memory

    @contextmanager
    def snapshot(self) -> Iterator[Table]:
        """Return a context in which all that is read belongs to one state of the file."""
        with self._lock:
            if self._db.transacting:
                yield self._table
                return
            with self._db.reading():
                self._follow()
                yield self._table

    def _follow(self) -> Counters:
        """Bring the table to the state that the open transaction sees."""
        at, held = self._file.counters(), self._held
        if at == held:
            return at
        self._held = None
        if held is None or at.epoch != held.epoch or held.change < at.horizon:
            self._load(at)
        else:
            self._catch_up(held, at)
        self._held = at
        return at

    def _load(self, at: Counters) -> None:
        dtype = self.colbert_dtype
        stores = Stores(
            self._settings["modes"],
            weighting=self._weighting(at),
            colbert_dtype=dtype,
            colbert_pool_factor=self._settings["colbert_pool_factor"],
            colbert=DiskVectors(self._file.vectors, dtype=dtype) if self._on_disk else None,
        )
        self._table = Table(stores, compacting=False)
        check = self._take(at, after=-1)
        if len(self._table) != at.documents or check != at.check:
            raise self._file.corrupt("documents are missing, or there are too many")

    def _catch_up(self, held: Counters, at: Counters) -> None:
        table, weighted = self._table, self._table.stores.weighted
        # one that was deleted and is there again comes with the rows below
        table.delete(table.known(list(dict.fromkeys(self._file.removed(held.change)))))
        weighting = self._weighting(at) if at.terms > held.terms else None
        if weighted is not None and weighting is not None:
            weighted.renew(weighting)
        self._take(at, after=held.next - 1)
        if len(table) != at.documents:
            self._load(at)

    def _take(self, at: Counters, *, after: int) -> int:
        """Append the live documents of rows above ``after``; returns the sum of their digests."""
        layout = Layout(
            outputs=self._table.stores.stored,
            terms=at.terms if self._settings["weighting"] else None,
            colbert_dtype=self.colbert_dtype,
            on_disk=self._on_disk,
        )
        check = 0
        for piece in pieces(self._file, layout, after=after):
            try:
                self._table.extend(piece.records, piece.arrays)
            except InputError as error:  # of another width than what came before
                raise self._file.corrupt(str(error)) from error
            check = digest_sum(check, plus=piece.digests)
        return check

    def _weighting(self, at: Counters) -> TermWeighting | None:
        state = self._settings["weighting"]
        if state is None or self._restore is None:
            return None
        return self._restore({**state, "vocabulary": self._file.vocabulary(at.terms)})

    # Changes

    def add(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert new records; they are on the disk when it returns.

        representations: one row a record, with every output this index stores. Raises, before
        anything is stored, DuplicateIdError for an id given twice or known, MissingOutputError
        for an output that is not there, InputError for counts or widths that do not fit and
        metadata that is not JSON.
        """
        self._put(records, representations, replace=False)

    def upsert(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert records, replacing those whose id is known; they move to the end."""
        self._put(records, representations, replace=True)

    def _put(
        self, records: Sequence[Record], representations: Representations, *, replace: bool
    ) -> None:
        kept = [stored_record(record) for record in check_records(records)]
        ids = [record.id for record in kept]
        with self._changing() as (table, at):
            if not replace:
                check_new(ids, table)
            check_distinct(ids)
            if not kept:
                return
            table.stores.check(representations, count=len(kept))
            self._held = None
            arrays = table.stores.incoming([record.text for record in kept], representations)
            terms = self._vocabulary()[at.terms :]
            replaced = table.known(ids)
            now, rows = writing.put(self._file, at, kept, arrays, terms=terms, replaced=replaced)
            self._db.commit()
            table.extend(kept, by_key(arrays, rows) if self._on_disk else arrays)
            self._made(now)

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None
    ) -> list[str]:
        """Remove the records of these ids that the filter admits; returns the ids removed.

        Unknown ids are passed over. Raises InputError where neither is given.
        """
        with self._changing() as (table, at):
            gone = ids_to_delete(self, ids, filter=filter)
            if gone:
                self._held = None
                now = writing.remove(self._file, at, gone)
                self._db.commit()
                table.delete(gone)
                self._made(now)
        return gone

    @contextmanager
    def _changing(self) -> Iterator[tuple[Table, Counters]]:
        """Keep other threads and other writers out; what is not committed inside is undone."""
        with self._lock:
            self._db.end()  # this thread may be reading
            with self._db.writing():
                at = self._follow()
                yield self._table, at

    def _made(self, now: Counters) -> None:
        """Note that memory has followed a commit, and compact where it is time to."""
        self._held = now
        if too_many_dead(now.rows - now.documents, live=now.documents):
            # the change is on the disk whatever becomes of this, and the next one tries again
            with suppress(SavedIndexError):
                self._compact()

    def _compact(self) -> None:
        """Write the batches anew from the live rows, and give the space back."""
        with self._db.writing():
            at, table = self._follow(), self._table
            self._held = None
            table.compact()
            terms = self._vocabulary()
            now = writing.rewrite(self._file, at, self._live(table), terms=terms)
            self._db.commit()
        self._held = now
        self._db.execute("PRAGMA incremental_vacuum")

    def _live(self, table: Table) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the arrays of a table without dead rows, as batches keep them."""
        keys, stores = writing.live_rows(self._file), table.stores
        for first in range(0, len(keys), writing.BATCH_ROWS):
            rows = np.arange(first, min(len(keys), first + writing.BATCH_ROWS))
            arrays = {"rows": keys[rows], **stores.rows(rows)}
            if "colbert" in stores.stored:
                width = kept_width(stores.colbert.width or 0, self.colbert_dtype)
                arrays["colbert.lengths"] = stores.colbert.lengths(rows)
                arrays["colbert.width"] = np.array([width], np.int64)
            if stores.weighted is not None:
                arrays |= stores.weighted.rows(rows)
            yield arrays

    def _vocabulary(self) -> list[str]:
        weighting = self._table.stores.weighting
        terms: list[str] = [] if weighting is None else weighting.state().get("vocabulary", [])
        return terms

    # Whose it is, and letting go

    def bind(
        self, model: Mapping[str, Any], *, extra: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Bind the index to a model; returns the JSON kept beside it, {} for none.

        model: ``name`` and ``fingerprint``; the first call notes them, and afterwards another
        fingerprint is an IndexModelError. extra: JSON to keep instead of what is there.
        """
        with self.snapshot():
            kept, changed = self._bound(model, extra)
        if changed is None:
            return kept
        with self._changing():
            kept, changed = self._bound(model, extra)
            if changed is not None:
                self._file.write_note(changed)
        return kept

    def _bound(
        self, model: Mapping[str, Any], extra: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return what is kept beside the index, and the note to write where it changes."""
        note = self._file.note()
        if "model" in note:
            check_model(self.place, saved=note["model"], given=model)
        kept = dict(note.get("extra", {}) if extra is None else extra)
        changed = {**note, "model": dict(model), "extra": kept}
        return kept, None if changed == note else changed

    def close(self) -> None:
        """Let go of the file; a later call raises IndexUnavailableError."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> DurableIndex:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise InputError(
            "A DurableIndex expects to stay in its process, got a copy or a pickle made of that in "
            f"{self.place!r}. Open it by its path where you need it."
        )
