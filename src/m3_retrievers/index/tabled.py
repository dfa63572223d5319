"""What an index over a ``Table`` answers, wherever its changes are kept.

Reading is the same for an index in memory and for one whose file other processes write: each
call sees one state of the table. A subclass says in ``snapshot`` how it gets hold of it.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from m3_retrievers.checks import check_ids, check_k
from m3_retrievers.index import search as hybrid_search
from m3_retrievers.index.base import Encode, Filter, TermWeighting
from m3_retrievers.index.stores.compressed import ColbertDtype
from m3_retrievers.index.table import Table
from m3_retrievers.types.hits import Query, Ranking, Record, SearchResult
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Mode, Plan
from m3_retrievers.types.representations import Output, Representations


class TableIndex(ABC):
    """Reading from a table of records and representations. Ties break by insertion order."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[Table]:
        """Return a context whose table nobody changes; entered again inside, it is the same."""

    def __len__(self) -> int:
        with self.snapshot() as table:
            return len(table)

    def __contains__(self, id: object) -> bool:
        with self.snapshot() as table:
            return id in table

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value!r}" for name, value in self._facts().items())
        return f"{type(self).__name__}({facts})"

    def _repr_html_(self) -> str:
        from m3_retrievers.display import markup

        facts = self._facts()
        return markup.facts(type(self).__name__, {**facts, "modes": ", ".join(facts["modes"])})

    def _facts(self) -> dict[str, Any]:
        return {"documents": len(self), "modes": sorted(self.modes)}

    @property
    def modes(self) -> frozenset[Mode]:
        """The modes it scores."""
        with self.snapshot() as table:
            return table.stores.modes

    @property
    def weighting(self) -> TermWeighting | None:
        """The term weights that depend on the collection, such as BM25's, up to date."""
        with self.snapshot() as table:
            return table.stores.fitted(live=table.live)

    @property
    def colbert_dtype(self) -> ColbertDtype:
        """The precision of the stored token vectors."""
        with self.snapshot() as table:
            return table.stores.colbert.dtype

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, in order of insertion."""
        with self.snapshot() as table:
            return table.ids(table.live.rows)

    # Records out

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return copies of the records in the order asked for, passing over unknown ids."""
        wanted = check_ids(ids, name="get")
        with self.snapshot() as table:
            found = table.records(table.rows(table.known(wanted)))
        return [Record(r.id, r.text, copy.deepcopy(dict(r.metadata))) for r in found]

    def pages(self, *, filter: Filter | None = None, size: int = 1000) -> Iterator[list[Record]]:
        """Yield the records that a filter admits, ``size`` at a time, in order of insertion."""
        check_k(size, name="size")
        ids = self.where(filter)
        return (self.get(ids[at : at + size]) for at in range(0, len(ids), size))

    def where(self, filter: Filter | None) -> list[str]:
        """Return the ids of the records that a filter admits, in order of insertion."""
        with self.snapshot() as table:
            admitted = table.admitted(filter)
            rows = table.live.rows if admitted is None else admitted.nonzero()[0]
            return list(table.ids(rows))

    def vectors(
        self, ids: Sequence[str], *, outputs: Sequence[Output] | None = None
    ) -> Representations:
        """Return the stored representations of the given records, a row an id, in that order.

        outputs: those wanted, None for all that are stored; ColBERT's come in the dtype they
        are kept in. Raises InputError for an unknown id, MissingOutputError for an output that
        is not stored.
        """
        wanted = check_ids(ids, name="vectors")
        with self.snapshot() as table:
            stores = table.stores
            return stores.vectors(table.rows(wanted), stores.stored if outputs is None else outputs)

    def in_order(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that are known, each once, in order of insertion."""
        wanted = check_ids(ids, name="in_order")
        with self.snapshot() as table:
            known = list(dict.fromkeys(table.known(wanted)))
            return [known[at] for at in table.rows(known).argsort()]

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
        with self.snapshot() as table:
            return table.recall(query, mode, k=k, filter=filter, ids=named)

    def recall_many(
        self,
        queries: Sequence[Query],
        mode: Mode,
        *,
        k: int | None,
        filter: Filter | None = None,
        ids: Collection[str] | None = None,
    ) -> list[Ranking]:
        """Return what ``recall`` does for each query, to the same bits."""
        if k is not None:
            check_k(k)
        named = None if ids is None else check_ids(ids, name="recall")
        with self.snapshot() as table:
            return table.recall_many(queries, mode, k=k, filter=filter, ids=named)

    def score(self, query: Query, mode: Mode, ids: Sequence[str]) -> Floats:
        """Return (n,) scores of the given records; InputError for an unknown id."""
        wanted = check_ids(ids, name="score")
        with self.snapshot() as table:
            return table.score(query, mode, wanted)

    def scale(self, query: Query, mode: Mode) -> float:
        """Return the factor from a mode's score to the hybrid's range; 1 for M3's modes."""
        with self.snapshot() as table:
            return table.stores.scale(query, mode, live=table.live)

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

    # Changes

    @abstractmethod
    def add(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert new records; DuplicateIdError, before anything is stored, if an id is known."""

    @abstractmethod
    def upsert(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert records, replacing those whose id is known; they move to the end."""

    @abstractmethod
    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None
    ) -> list[str]:
        """Remove the records of these ids that the filter admits; returns the ids removed."""
