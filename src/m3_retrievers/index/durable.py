"""The index in one file: every change is on the disk when the call returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np

from m3_retrievers.checks import check_new
from m3_retrievers.errors import InputError, SavedIndexError
from m3_retrievers.index.base import Filter, TermWeighting
from m3_retrievers.index.deleting import ids_to_delete
from m3_retrievers.index.disk_vectors import DiskVectors
from m3_retrievers.index.ledger import APPLICATION, Counters, Ledger
from m3_retrievers.index.locking import ForkSafeLock
from m3_retrievers.index.manifest import check_model
from m3_retrievers.index.multivector import ColbertDtype
from m3_retrievers.index.records import check_records, stored_record
from m3_retrievers.index.sqlite import Database
from m3_retrievers.index.stores import Stores
from m3_retrievers.index.table import Table, check_distinct, too_many_dead
from m3_retrievers.index.tabled import TableIndex
from m3_retrievers.types.hits import Record
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations

Colbert: TypeAlias = Literal["disk", "memory", "recompute"]
Restore: TypeAlias = Callable[[Mapping[str, Any]], TermWeighting]


class DurableIndex(TableIndex):
    """The documents of one SQLite file, and in memory what finds them."""

    def __init__(
        self,
        path: str | Path,
        *,
        modes: Sequence[Output] | None = None,
        weighting: TermWeighting | None = None,
        restore: Restore | None = None,
        colbert: Colbert | None = None,
        colbert_dtype: ColbertDtype | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.place = str(Path(path).absolute())
        self._db = Database(Path(self.place), application=APPLICATION, timeout=timeout)
        self._lock = ForkSafeLock(before_fork=self._db.disconnect)
        self._ledger = Ledger(self._db)
        self._restore = restore or getattr(type(weighting), "from_state", None)
        stored = [m for m in (modes or ALL_OUTPUTS) if m != "colbert" or colbert != "recompute"]
        state = None if weighting is None else weighting.state()
        new = {
            "modes": stored,
            "colbert_dtype": colbert_dtype or "float16",
            "weighting": state and {k: v for k, v in state.items() if k != "vocabulary"},
        }
        with self._lock, self._db.writing():
            self._settings = self._ledger.opened(new)
            self._ledger.dtype = self._settings["colbert_dtype"]
        self._db.sync_folder()
        self._on_disk = colbert != "memory"
        self._held: Counters | None = None
        self._table: Table

    # One state of the table

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

    def _follow(self) -> None:
        """Bring the table to the state of the file that the open transaction sees."""
        at, held = self._ledger.counters(), self._held
        if at == held:
            return
        self._held = None  # a table that was left half done is loaded again
        if held is None or at.epoch != held.epoch or held.change < at.horizon:
            self._load(at)
        else:
            self._catch_up(held, at)
        self._held = at

    def _load(self, at: Counters) -> None:
        self._table = Table(self._stores(at), compacting=False)
        check = 0
        for piece in self._ledger.pieces(-1, vectors=not self._on_disk):
            self._table.extend(piece.records, piece.arrays)
            check += piece.check
        if len(self._table) != at.documents or check % (1 << 256) != at.check:
            raise self._ledger.corrupt("documents are missing")

    def _catch_up(self, held: Counters, at: Counters) -> None:
        table = self._table
        # who was deleted and is there again has a new row
        gone = dict.fromkeys(self._ledger.removed(held.change))
        table.delete(table.known(list(gone)))
        if table.stores.weighted is not None and at.terms > held.terms:
            table.stores.weighted.renew(self._weighting(at))
        for piece in self._ledger.pieces(held.next - 1, vectors=not self._on_disk):
            table.extend(piece.records, piece.arrays)
        if len(table) != at.documents:
            self._load(at)

    def _stores(self, at: Counters) -> Stores:
        dtype = self._settings["colbert_dtype"]
        return Stores(
            self._settings["modes"],
            weighting=self._weighting(at) if self._settings["weighting"] else None,
            colbert_dtype=dtype,
            colbert=DiskVectors(self._ledger.vectors, dtype=dtype) if self._on_disk else None,
        )

    def _weighting(self, at: Counters) -> TermWeighting:
        assert self._restore is not None
        return self._restore(
            {**self._settings["weighting"], "vocabulary": self._ledger.terms(at.terms)}
        )

    # Changes

    def add(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert new records; they are on the disk when it returns."""
        self._put(records, representations, replace=False)

    def upsert(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert records, replacing those whose id is known; they move to the end."""
        self._put(records, representations, replace=True)

    def _put(
        self, records: Sequence[Record], representations: Representations, *, replace: bool
    ) -> None:
        kept = [stored_record(record) for record in check_records(records)]
        ids = [record.id for record in kept]
        with self._changing():
            with self._db.writing():
                self._follow()
                table, held = self._table, self._held
                assert held is not None
                if not replace:
                    check_new(ids, table)
                check_distinct(ids)
                if not kept:
                    return
                table.stores.check(representations, count=len(kept))
                self._held = None
                arrays = table.stores.incoming([record.text for record in kept], representations)
                now, rows = self._ledger.put(
                    held,
                    kept,
                    arrays,
                    terms=self._new_terms(held),
                    replaced=table.known(ids),
                )
            if self._on_disk and "colbert.offsets" in arrays:
                arrays = {
                    **arrays,
                    "colbert.keys": rows,
                    "colbert.lengths": np.diff(arrays["colbert.offsets"]),
                    "colbert.width": np.array([arrays["colbert.vectors"].shape[1]]),
                }
            table.extend(kept, arrays)
            self._held = now
            self._compact_where_due(now)

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None
    ) -> list[str]:
        """Remove the records of these ids that the filter admits; returns the ids removed."""
        with self._changing():
            with self._db.writing():
                self._follow()
                table, held = self._table, self._held
                assert held is not None
                gone = ids_to_delete(self, ids, filter=filter)
                if not gone:
                    return []
                self._held = None
                now = self._ledger.remove(held, gone)
            table.delete(gone)
            self._held = now
            self._compact_where_due(now)
        return gone

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            self._db.end()
            yield

    def _new_terms(self, held: Counters) -> list[str]:
        weighting = self._table.stores.weighting
        if weighting is None:
            return []
        terms: list[str] = weighting.state()["vocabulary"][held.terms :]
        return terms

    def _compact_where_due(self, now: Counters) -> None:
        if too_many_dead(now.rows - now.documents, live=now.documents):
            # the change is on the disk, whatever becomes of this; the next one tries again
            with suppress(SavedIndexError):
                self._compact()

    def _compact(self) -> None:
        """Write anew what the batches hold of the live documents, and let the rest go."""
        with self._db.writing():
            self._follow()
            held, table = self._held, self._table
            assert held is not None
            self._held = None
            table.compact()
            terms = (
                []
                if table.stores.weighting is None
                else table.stores.weighting.state()["vocabulary"]
            )
            now = self._ledger.rewrite(held, self._batches(table), terms=terms)
        self._held = now
        self._db.execute("PRAGMA incremental_vacuum")

    def _batches(self, table: Table) -> Iterator[dict[str, Any]]:
        keys = self._ledger.live_rows()
        stores = table.stores
        for first in range(0, len(keys), 1024):
            rows = np.arange(first, min(len(keys), first + 1024))
            arrays = {"rows": keys[rows], **stores.rows(rows)}
            if "colbert" in stores.stored:
                arrays["colbert.lengths"] = stores.colbert.lengths(rows)
                arrays["colbert.width"] = np.array([stores.colbert.width or 0], np.int64)
            if stores.weighted is not None:
                arrays |= stores.weighted.rows(rows)
            yield arrays

    # Whose it is

    def bind(
        self, model: Mapping[str, Any], *, extra: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Bind the index to a model; returns the JSON kept beside it, {} for none."""
        with self._changing(), self._db.writing():
            note = self._ledger.note()
            if "model" in note:
                check_model(self.place, saved=note["model"], given=model)
            kept = dict(note.get("extra", {}) if extra is None else extra)
            changed = {**note, "model": dict(model), "extra": kept}
            if changed != note:
                self._ledger.write_note(changed)
            return kept

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

    @property
    def modes(self) -> frozenset[Mode]:
        """The modes it scores."""
        named = self._settings["weighting"] and ("bm25",)
        return frozenset((*self._settings["modes"], *(named or ())))

    def __reduce__(self) -> NoReturn:
        raise InputError(
            f"A DurableIndex expects to stay in its process, got a copy or a pickle of the one in "
            f"{self.place!r}. Open it again by its path."
        )
