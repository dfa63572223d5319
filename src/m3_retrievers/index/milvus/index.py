"""An index in Milvus: Lite in a file, a server, or a cluster, by one address."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from m3_retrievers.checks import check_ids, check_k, check_known, check_new
from m3_retrievers.errors import InputError, SavedIndexError
from m3_retrievers.index.base import Filter
from m3_retrievers.index.engine import EngineIndex
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.index.incoming import widths_of
from m3_retrievers.index.milvus.collection import Collection
from m3_retrievers.index.milvus.connection import Connection
from m3_retrievers.index.milvus.documents import RECORD, Documents
from m3_retrievers.index.milvus.facts import translate
from m3_retrievers.index.milvus.layout import Colbert, Layout, Row, asked_layout
from m3_retrievers.index.milvus.parts import Parts
from m3_retrievers.index.milvus.ranking import Admitted, rank, sums_of_best
from m3_retrievers.index.milvus.rows import given, key_of, metadata_of, record_of
from m3_retrievers.types.hits import Query, Ranking, Record
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import Output, Representations

_SETTINGS, _NOTE = "settings", "note"


class MilvusIndex(EngineIndex):
    """Records with their representations in Milvus, exact, with filters before each leg's best.

    uri: a path such as ``"./m.db"`` (Milvus Lite, for this process alone) or a server's or
        cluster's address. token: ``"user:password"`` or an API key. collection: its name; a
        second one, ``<name>_parts``, lies beside it. timeout: seconds for each call.
    modes: what is kept, of ``"dense"``, ``"sparse"``, ``"colbert"``, at least one of the first
        two; None for what is there, and for all in a new index.
    colbert: where ColBERT vectors are. ``"beside"``: in float16 in the second collection, scored
        here. ``"engine"``: in float32 as an array of vectors that a server from 2.6.4 on scores
        (written against recorded requests, not tried on a server). ``"recompute"``: nowhere, a
        retriever encodes the candidates. None: as it is there; a new index has it beside.

    Ties break by the clock of the process that wrote, in order within a call. Of two that write
    one id at the same time the last one stays. A call of up to 32 MB is written whole or not at
    all, larger ones in several requests. A document's id may have 65,535 bytes, and so may what
    its metadata is found by, some 2,600 values; its text may be of any length.

    Milvus Lite does not wait for the disk: what a call returned from survives the process, and
    not the machine.

    Raises IndexUnavailableError without an answer in time, IndexLockedError for a file that
    another process has, SavedIndexError for settings other than those of the index there.
    """

    def __init__(
        self,
        uri: str,
        *,
        token: str | None = None,
        collection: str = "m3_documents",
        modes: Sequence[Output] | None = None,
        colbert: Colbert | None = None,
        timeout: float = 30.0,
    ) -> None:
        asked = asked_layout(modes, colbert)
        self._connection = Connection(uri, token=token, timeout=timeout)
        self.place = f"{self._connection.place}#{collection}"
        self._writing = _writing(self._connection.path or self._connection.place, collection)
        self._collection = Collection(self._connection, collection)
        self._parts = Parts(self._connection, f"{collection}_parts")
        self._last_place = 0
        self._reading = _Reading()
        self._take(asked)
        with ExitStack() as opened:
            opened.callback(self.close)
            self._find(modes, colbert)
            opened.pop_all()

    # Records in and out

    def __len__(self) -> int:
        return self._collection.count()

    def where(self, filter: Filter | None) -> list[str]:
        """Return the ids of the records that the filter admits, in order of insertion."""
        translated = translate(filter)
        admits = compile_filter(filter)
        wanted = ["id"] if translated.exact else ["id", "metadata"]
        rows = (
            row
            for page in self._documents().pages(translated.expression, wanted)
            for row in page
            if translated.exact or admits(metadata_of(row))
        )
        return [given(row["id"]) for row in sorted(rows, key=_order)]

    def pages(self, *, filter: Filter | None = None, size: int = 1000) -> Iterator[list[Record]]:
        """Yield the records that the filter admits, ``size`` at a time, in order of insertion."""
        check_k(size, name="size")
        ids = self.where(filter)
        return (self.get(ids[at : at + size]) for at in range(0, len(ids), size))

    def _known(self, ids: Sequence[str]) -> list[str]:
        rows = self._rows(ids, ["id"])
        return [id for id, row in sorted(rows.items(), key=lambda one: _order(one[1]))]

    def _get(self, ids: Sequence[str]) -> dict[str, Record]:
        return {id: record_of(row) for id, row in self._rows(ids, RECORD).items()}

    def _vectors(self, ids: Sequence[str], outputs: Sequence[Output]) -> Representations:
        rows = self._rows(ids, outputs)
        check_known(ids, rows)  # one may have been deleted since it was asked for
        return self._layout.representations([rows[id] for id in ids], outputs)

    def _put(
        self, records: Sequence[Record], representations: Representations, *, replace: bool
    ) -> None:
        with self._writing:
            if not replace:  # asked before, but another thread may have added since
                check_new([one.id for one in records], set(self._known([r.id for r in records])))
            self._make(representations)
            first = max(self._last_place + 1, time.time_ns())
            self._last_place = first + len(records)
            places = range(first, self._last_place)
            self._documents().write(records, places, representations)

    def _remove(self, ids: Sequence[str]) -> None:
        with self._writing:
            self._documents().remove(ids)

    # Reading

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Return a context in which what was read of a document once is not read again.

        What the legs recall is read before; a document that was deleted since is left out. Milvus
        Lite replaces a row in two steps, so there this index's own changes wait.
        """
        outer = self._reading.rows
        with self._writing if self._connection.path is not None else nullcontext():
            self._reading.rows = {} if outer is None else outer
            try:
                yield
            finally:
                self._reading.rows = outer

    def _rows(self, ids: Sequence[str], wanted: Sequence[str]) -> dict[str, Row]:
        """Return the rows of those ids that are there; in a snapshot whole ones, read once."""
        documents, held = self._documents(), self._reading.rows
        if held is None:
            held = documents.named([key_of(id) for id in ids], wanted)
        else:
            new = [key for key in map(key_of, ids) if key not in held]
            held |= documents.named(new, (*RECORD, *self.stored)) if new else {}
        return {id: held[key] for id, key in zip(ids, map(key_of, ids), strict=True) if key in held}

    def _documents(self) -> Documents:
        self._exists()
        return Documents(self._collection, self._parts, self._layout)

    # Recall and scores

    def _recall(
        self,
        query: Query,
        mode: Mode,
        *,
        k: int | None,
        filter: Filter | None,
        ids: Sequence[str] | None,
    ) -> Ranking:
        documents = self._documents()
        if not self._exists():
            return Ranking((), np.zeros(0, np.float32))
        [output] = [name for name in self.stored if name == mode]
        admitted = Admitted.by(documents, filter, ids)
        return rank(documents, query, output, k=k, admitted=admitted)

    def score(self, query: Query, mode: Mode, ids: Sequence[str]) -> Floats:
        """Return (n,) scores of the given records; InputError for an unknown id."""
        if mode == "colbert" and self._layout.arrays and ids:
            self._check_query(query, mode)
            sums = sums_of_best(self._documents(), query, check_ids(ids, name="score"))
            if sums is not None:
                return sums
        return super().score(query, mode, ids)

    # Whose it is, and how it lies there

    def close(self) -> None:
        """Let go of the connection, and of Milvus Lite's file; later calls raise."""
        self._connection.close()

    def _widths(self) -> Mapping[str, int]:
        self._exists()
        return self._layout.widths

    def _read_note(self) -> dict[str, Any]:
        return self._parts.read_record(_NOTE)

    def _write_note(self, note: Mapping[str, Any]) -> None:
        self._parts.write_record(_NOTE, note)

    def _take(self, layout: Layout) -> None:
        self._layout = layout
        self.stored = layout.stored

    def _find(self, modes: Sequence[Output] | None, colbert: Colbert | None) -> None:
        """Take the layout of the index that is there; SavedIndexError where another was asked."""
        asked, saved = self._layout, self._parts.read_record(_SETTINGS)
        if asked.arrays and not self._connection.has_arrays_of_vectors:
            raise InputError(
                f'colbert="engine" expects a Milvus server from 2.6.4 on, got '
                f'{self._connection.version!r}. Leave it out, or choose "beside" or "recompute".'
            )
        if not saved:
            return
        there = Layout.from_record(saved, place=self.place)
        self._take(there)
        modes_differ = modes is not None and set(asked.stored) != set(there.stored)
        if modes_differ or (colbert is not None and not asked.agrees(there)):
            raise SavedIndexError(
                f"The index at {self.place!r} keeps {there.stored} with colbert="
                f"{there.colbert!r}, got {asked.stored} with colbert={asked.colbert!r}. Leave "
                "modes= and colbert= out, or choose another collection."
            )

    def _exists(self) -> bool:
        """Return whether documents were ever added, here or by another process."""
        if not self._layout.widths and (saved := self._parts.read_record(_SETTINGS)):
            self._take(Layout.from_record(saved, place=self.place))
        return bool(self._layout.widths) and self._collection.exists()

    def _make(self, representations: Representations) -> None:
        """Make the collections where they are not there, for vectors of these widths."""
        if self._exists():
            return
        if not self._layout.widths:
            self._take(replace(self._layout, widths=widths_of(representations, self.stored)))
            self._parts.write_record(_SETTINGS, self._layout.to_record())
        layout = self._layout
        self._collection.make(layout.fields(), layout.indexes(), vectors=layout.vectors())


class _Reading(threading.local):
    """The rows that a thread's snapshot has read, None outside of one."""

    rows: dict[str, Row] | None = None


def _order(row: Row) -> tuple[int, str]:
    return row["place"], row["key"]


def _writing(place: str, collection: str) -> threading.RLock:
    """Return the lock of all indexes of this process over one collection."""
    return _LOCKS.setdefault((place, collection), threading.RLock())


_LOCKS: dict[tuple[str, str], threading.RLock] = {}
