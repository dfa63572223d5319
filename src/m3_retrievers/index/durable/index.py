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

from m3_retrievers.checks import check_distinct, check_new
from m3_retrievers.errors import InputError, SavedIndexError
from m3_retrievers.index.base import Filter, TermWeighting
from m3_retrievers.index.deleting import ids_to_delete
from m3_retrievers.index.durable import writing
from m3_retrievers.index.durable.file import Counters
from m3_retrievers.index.durable.opening import (
    Colbert,
    Options,
    Restore,
    database_of,
    made,
    modes_of,
    restore_of,
)
from m3_retrievers.index.durable.table import FollowingTable
from m3_retrievers.index.durable.vectors import by_key
from m3_retrievers.index.locking import ForkSafeLock
from m3_retrievers.index.records import check_records, stored_record
from m3_retrievers.index.snapshot.manifest import bound_record, check_model
from m3_retrievers.index.stores.compressed import ColbertDtype
from m3_retrievers.index.table import Table, too_many_dead
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
        self._memory = FollowingTable(
            self._file,
            self._settings,
            restore=restore_of(options),
            on_disk=colbert != "memory",
        )
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
                yield self._memory.table
                return
            with self._db.reading():
                self._memory.follow()
                yield self._memory.table

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
            self._memory.at = None
            arrays = table.stores.incoming([record.text for record in kept], representations)
            terms = self._memory.vocabulary()[at.terms :]
            replaced = table.known(ids)
            now, rows = writing.put(self._file, at, kept, arrays, terms=terms, replaced=replaced)
            self._db.commit()
            table.extend(kept, by_key(arrays, rows) if self._memory.on_disk else arrays)
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
                self._memory.at = None
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
                at = self._memory.follow()
                yield self._memory.table, at

    def _made(self, now: Counters) -> None:
        """Note that memory has followed a commit, and compact where it is time to."""
        self._memory.at = now
        if too_many_dead(now.rows - now.documents, live=now.documents):
            # the change is on the disk whatever becomes of this, and the next one tries again
            with suppress(SavedIndexError):
                self._compact()

    def _compact(self) -> None:
        """Write the batches anew from the live rows, and give the space back."""
        with self._db.writing():
            at = self._memory.follow()
            self._memory.at = None
            self._memory.table.compact()
            terms = self._memory.vocabulary()
            now = writing.rewrite(self._file, at, self._memory.batches(), terms=terms)
            self._db.commit()
        self._memory.at = now
        self._db.shrink()

    # Whose it is, and letting go

    def note(self) -> dict[str, Any]:
        """Return the JSON beside the documents, with ``model`` and ``extra``; {} for none."""
        with self.snapshot():
            return dict(self._file.note())

    def bind(
        self, model: Mapping[str, Any], *, extra: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Bind the index to a model; returns the JSON kept beside it, {} for none.

        model: ``name``, ``fingerprint`` and, where known, ``precision``; the first call notes
        them, and afterwards another fingerprint is an IndexModelError, and the precision stays.
        extra: JSON to keep instead of what is there.
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
        record = bound_record(saved=note.get("model", {}), given=model)
        changed = {**note, "model": record, "extra": kept}
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
