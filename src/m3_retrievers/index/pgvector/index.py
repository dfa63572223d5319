"""PgVectorIndex: records and representations in a PostgreSQL table, searched by SQL."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from m3_retrievers.checks import check_ids, check_k, check_known, check_new, require_package
from m3_retrievers.errors import DuplicateIdError, IndexLockedError, InputError
from m3_retrievers.index import search as hybrid_search
from m3_retrievers.index.base import Encode, Filter
from m3_retrievers.index.conditions import parse_filter
from m3_retrievers.index.deleting import named_for_delete
from m3_retrievers.index.engine import EngineIndex, output_of
from m3_retrievers.index.incoming import check_query
from m3_retrievers.index.pgvector.answers import ranking_of, result_of
from m3_retrievers.index.pgvector.values import TokenDtype, read
from m3_retrievers.types.hits import Query, Ranking, Record, SearchResult
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Mode, Plan
from m3_retrievers.types.representations import Output, Representations

if TYPE_CHECKING:
    import psycopg

    from m3_retrievers.index.pgvector.statements import Search

T = TypeVar("T")

# A writer that another one got in the way of begins anew, after a pause that grows.
_TRIES, _PAUSE = 8, 0.01


class PgVectorIndex(EngineIndex):
    """Records in a PostgreSQL table with pgvector: the whole hybrid search is one statement.

    target: a DSN such as ``"postgresql://user@host/database"``, over which each call is
        committed, or a ``psycopg.Connection`` of the caller's, inside whose transaction
        everything runs: it is never committed here, and an error undoes one call alone.
    table, schema: its name; made if there is none, with a note beside it (``…_note``). None
        is the first schema of the search path. Columns id, text and metadata (JSONB) are there
        to be joined with other tables.
    modes: what is stored, of ``"dense"``, ``"sparse"``, ``"colbert"``; None takes what an
        existing table has, or all. colbert_dtype: ``"float16"`` (halfvec) halves the size and
        moves a score by less than 1e-3, ``"float32"`` (vector) keeps every bit; None likewise.
    timeout: seconds that an answer may take over a DSN; a connection has settings of its own.
    approximate: let an index of ``create_hnsw`` answer the dense leg (pgvector 0.8). Otherwise
        each leg is exact.

    Safe to share between threads and, by DSN, over forks. Scores are float32 sums. Ties break
    by insertion order. There is no BM25 leg.

    Raises InputError for a DSN or options that cannot be, IndexUnavailableError for a server
    that cannot be reached or has no pgvector, SavedIndexError for a table of another make,
    MissingExtraError without psycopg.
    """

    tolerance: ClassVar[float] = 1e-5

    def __init__(
        self,
        target: str | psycopg.Connection[Any],
        *,
        table: str = "m3_documents",
        schema: str | None = None,
        modes: Sequence[Output] | None = None,
        colbert_dtype: TokenDtype | None = None,
        timeout: float = 30.0,
        approximate: bool = False,
    ) -> None:
        require_package("psycopg", module="psycopg", extra="pgvector", purpose="PgVectorIndex")
        from m3_retrievers.index.pgvector.store import open_store

        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise InputError(f"timeout expects seconds, got {timeout!r:.60}.")
        if not 0 < timeout < math.inf:
            raise InputError(f"timeout expects a finite number above 0, got {timeout!r}.")
        self._store = open_store(
            target,
            table=table,
            schema=schema,
            modes=modes,
            colbert_dtype=colbert_dtype,
            timeout=timeout,
            approximate=approximate,
        )
        self._approximate = approximate
        self._noted: Mapping[str, int] = {}
        self.stored = self._store.table.outputs
        self.place = f"{self._store.session.place}#{self._store.table.schema}.{table}"

    # Records in and out

    def __len__(self) -> int:
        return self._store.count()

    def where(self, filter: Filter | None) -> list[str]:
        """Return the ids of the records that the filter admits, in order of insertion."""
        return self._store.where(filter)

    def pages(self, *, filter: Filter | None = None, size: int = 1000) -> Iterator[list[Record]]:
        """Yield the records that the filter admits, ``size`` at a time, in order of insertion."""
        check_k(size, name="size")
        parse_filter(filter)
        return self._pages(filter, size)

    def _pages(self, filter: Filter | None, size: int) -> Iterator[list[Record]]:
        last = 0
        while True:
            last, records = self._store.page(filter, after=last, size=size)
            if records:
                yield records
            if len(records) < size:
                return

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None
    ) -> list[str]:
        """Remove the records of these ids that the filter admits; returns the ids removed.

        Unknown ids are passed over. One statement: what another writer put there meanwhile
        stays. Raises InputError where neither is given.
        """
        named = named_for_delete(ids, filter)
        gone = _in_turn(lambda: self._store.delete(named, filter))
        if named is None:
            return gone
        removed = set(gone)
        return [id for id in named if id in removed]

    def _known(self, ids: Sequence[str]) -> list[str]:
        return self._store.known(ids)

    def _get(self, ids: Sequence[str]) -> dict[str, Record]:
        return self._store.records(ids)

    def _vectors(self, ids: Sequence[str], outputs: Sequence[Output]) -> Representations:
        return self._store.vectors(ids, outputs)

    def _widths(self) -> Mapping[str, int]:
        if self._noted:
            return self._noted
        widths = self._store.widths()
        # once committed they stay; what the caller's transaction shows may be rolled back
        if self._store.session.commits:
            self._noted = widths
        return widths

    def _put(
        self, records: Sequence[Record], representations: Representations, *, replace: bool
    ) -> None:
        try:
            # where an upsert meets another one of the same id, the later one counts
            again = (IndexLockedError, DuplicateIdError) if replace else (IndexLockedError,)
            _in_turn(
                lambda: self._store.put(records, representations, replace=replace), again=again
            )
        except DuplicateIdError:
            ids = [record.id for record in records]
            check_new(ids, set(self._known(ids)))
            raise

    def _remove(self, ids: Sequence[str]) -> None:
        _in_turn(lambda: self._store.delete(ids, None))

    # Recall, scores, search

    def _recall(
        self,
        query: Query,
        mode: Mode,
        *,
        k: int | None,
        filter: Filter | None,
        ids: Sequence[str] | None,
    ) -> Ranking:
        search = self._asked(query, [mode])
        search.admit(filter, ids)
        rows = self._run(search, search.recall(mode, k))
        return ranking_of([row[1] for row in rows], [row[2] for row in rows])

    def score(self, query: Query, mode: Mode, ids: Sequence[str]) -> Floats:
        """Return (n,) scores of the given records; InputError for an unknown id."""
        self._check_query(query, mode)
        wanted = check_ids(ids, name="score")
        if not wanted:
            return np.zeros(0, np.float32)
        search = self._asked(query, [mode])
        search.admit(None, dict.fromkeys(wanted))
        by_id = {read(id): score for id, score in self._run(search, search.score(mode))}
        check_known(wanted, by_id)
        return np.array([by_id[id] for id in wanted])

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
        """Return the k best hits of the whole hybrid search; see ``index.search.search``.

        One statement, unless a fusion orders or a mode is not kept: then as it is defined.
        """
        kept = set(plan.modes) <= self.modes and plan.legs
        if plan.fusion is not None or not kept:
            return hybrid_search.search(
                self, query, plan, k=k, filter=filter, ids=ids, encode=encode
            )
        check_k(k)
        named = None if ids is None else check_ids(ids, name="search")
        search = self._asked(query, plan.modes)
        search.admit(filter, named)
        return result_of(self._run(search, search.hybrid(plan, k)), plan)

    def snapshot(self) -> AbstractContextManager[object]:
        """Return a context in which this thread's reads see one state of the table.

        On a connection of the caller's that depends on their transaction's isolation.
        """
        return self._store.session.transaction(snapshot=True)

    def create_hnsw(self, *, m: int = 16, ef_construction: int = 64) -> None:
        """Make an HNSW index over the dense vectors, which ``approximate=True`` uses.

        m, ef_construction: as pgvector has them. Raises InputError before the first documents,
        and for more than 2,000 dimensions, which HNSW does not take.
        """
        check_k(m, name="m")
        check_k(ef_construction, name="ef_construction")
        self._store.create_hnsw(m=m, ef_construction=ef_construction)

    def _asked(self, query: Query, modes: Sequence[Mode]) -> Search:
        from m3_retrievers.index.pgvector.statements import Search

        for mode in modes:
            self._check_mode(mode)
            # without a look at the table: what does not fit it, the server refuses
            check_query(query, output_of(mode), held=self._noted)
        return Search(self._store.table, query, approximate=self._approximate)

    def _run(self, search: Search, statement: Any) -> list[tuple[Any, ...]]:
        return self._store.session.fetch(statement, search.params)

    # Whose it is

    def bind(
        self, model: Mapping[str, Any], *, extra: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Bind the index to a model; returns the JSON kept beside it, {} for none.

        model: ``name``, ``fingerprint`` and, where known, ``precision``; the first call notes
        them, and afterwards another fingerprint is an IndexModelError, also where two processes
        are first at once, and the precision stays. extra: JSON to keep instead of what is there.
        """
        if "model" in self._read_note() and extra is None:
            return super().bind(model)  # which writes nothing, so that a reader may
        with self._store.session.transaction() as connection:
            self._store.lock_note(connection)
            return super().bind(model, extra=extra)

    def _read_note(self) -> dict[str, Any]:
        return self._store.note("index")

    def _write_note(self, note: Mapping[str, Any]) -> None:
        self._store.write_note("index", note)

    def close(self) -> None:
        """Let go of our connections; a later call raises IndexUnavailableError.

        A connection of the caller's stays open, and its transaction theirs.
        """
        self._store.session.close()


def _in_turn(
    change: Callable[[], T], *, again: tuple[type[Exception], ...] = (IndexLockedError,)
) -> T:
    """Return what a change returns; one that was undone for another writer is made again."""
    for attempt in range(1, _TRIES):
        try:
            return change()
        except again:
            # by chance, so that two that met do not meet again
            time.sleep(random.uniform(0, _PAUSE * 2**attempt))
    return change()
