"""QdrantIndex: an index in a Qdrant collection, embedded, on a server, or on a cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from m3_retrievers.checks import check_ids, check_k, check_known
from m3_retrievers.errors import M3Error
from m3_retrievers.index.base import Encode, Filter, TermWeighting
from m3_retrievers.index.engine import EngineIndex
from m3_retrievers.index.qdrant.agreed import Agreement
from m3_retrievers.index.qdrant.collection import QdrantCollection
from m3_retrievers.index.qdrant.hybrid import HybridRequest, insertion
from m3_retrievers.index.qdrant.opening import checked_length, checked_modes, engine_at
from m3_retrievers.index.qdrant.options import QdrantStorage
from m3_retrievers.index.qdrant.points import (
    ID_FIELDS,
    RECORD_FIELDS,
    id_of,
    point_id,
    record_of,
    representations_of,
)
from m3_retrievers.index.qdrant.queries import Asked, asked_of
from m3_retrievers.index.qdrant.requests import Clause, Found, HasId, Nearest, Terms
from m3_retrievers.index.qdrant.terms import EngineBM25
from m3_retrievers.types.hits import Query, Ranking, Record, SearchResult
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Mode, Plan
from m3_retrievers.types.representations import Output, Representations

if TYPE_CHECKING:
    from qdrant_client import QdrantClient


class QdrantIndex(EngineIndex):
    """Records with dense, sparse and ColBERT vectors, and BM25, in one Qdrant collection.

    location: a folder, where Qdrant runs inside this process and keeps everything on disk; the
        URL of a server or a cluster; or a ``QdrantClient`` of the caller's, which keeps its own
        time-out and stays open. collection: its name, in any of them.
    api_key, timeout: of a server; seconds that one request may take with all its tries, 10 where
        None.
    modes: what is stored, of ``"dense"``, ``"sparse"``, ``"colbert"``; None takes what the
        collection has, or all three. weighting: a ``BM25``, which adds the mode ``"bm25"``;
        average_length: the number of terms it takes for average, None for that of the first add.
    storage: the precision of vectors. exact: whether the dense leg looks at every vector, or takes
        what Qdrant's graph finds of a large collection; None is True in a folder, False elsewhere.

    The first add makes the collection. A hybrid search is one request; it is two where BM25 enters
    the sum or a leg recalls everything, and takes reading metadata before where Qdrant cannot
    decide the filter (see ``qdrant.filters``).

    Ties break by insertion order, as the writers' clocks have it; but where documents tie at the
    very depth of a leg's recall, Qdrant chooses which of them the leg recalls. Scores are within
    1e-3 of exact ones. Safe to share between threads. ``add`` and ``upsert`` may send several
    requests; if the engine fails between them, add takes back what it wrote, and upsert may be
    called again.

    Raises IndexUnavailableError for a server that is out of reach, IndexLockedError for a folder
    that another process has open, InputError for a collection that was made otherwise.
    """

    # float16 vectors meet a query that the engine rounds to float16 too
    tolerance: ClassVar[float] = 1e-3

    def __init__(
        self,
        location: str | Path | QdrantClient,
        *,
        collection: str = "m3_retrievers",
        api_key: str | None = None,
        timeout: float | None = None,
        modes: Sequence[Output] | None = None,
        weighting: TermWeighting | None = None,
        average_length: float | None = None,
        storage: QdrantStorage | None = None,
        exact: bool | None = None,
    ) -> None:
        asked = Agreement(
            outputs=checked_modes(modes, weighting),
            storage=storage,
            bm25=None if weighting is None else EngineBM25.of(weighting),
            average_length=checked_length(average_length, weighting),
        )
        self._engine = engine_at(location, collection, api_key=api_key, timeout=timeout)
        self._exact = not self._engine.remote if exact is None else exact
        self.place = self._engine.place
        self._collection = QdrantCollection(self._engine, asked)
        self._engine_modes = () if weighting is None else ("bm25",)
        try:
            self._widths()
        except M3Error:
            self._engine.close()  # a refusal leaves no folder taken
            raise

    # Records in and out

    def __len__(self) -> int:
        return self._engine.count()

    def _known(self, ids: Sequence[str]) -> list[str]:
        by_point = {point_id(id): id for id in ids}
        found = self._engine.retrieve(list(by_point), payload=("n",))
        return [by_point[point.id] for point in sorted(found.values(), key=insertion)]

    def _put(
        self, records: Sequence[Record], representations: Representations, *, replace: bool
    ) -> None:
        self._collection.write(records, representations, only_new=not replace)

    def _remove(self, ids: Sequence[str]) -> None:
        self._engine.delete(HasId(frozenset(map(point_id, ids))))

    def _get(self, ids: Sequence[str]) -> dict[str, Record]:
        found = self._engine.retrieve([point_id(id) for id in ids], payload=RECORD_FIELDS)
        records = [record_of(point.payload) for point in found.values()]
        return {record.id: record for record in records}

    def _vectors(self, ids: Sequence[str], outputs: Sequence[Output]) -> Representations:
        points = [point_id(id) for id in ids]
        found = self._engine.retrieve(points, payload=("bare",), vectors=outputs)
        check_known(ids, {id for id, point in zip(ids, points, strict=True) if point in found})
        return representations_of([found[point] for point in points], outputs, self._widths())

    def _widths(self) -> Mapping[str, int]:
        agreement = self._collection.agreement()
        self.stored = agreement.stored  # another process may have made the collection meanwhile
        return agreement.widths

    def _read_note(self) -> dict[str, Any]:
        return self._collection.note()

    def _write_note(self, note: Mapping[str, Any]) -> None:
        self._engine.write_note(note)

    def where(self, filter: Filter | None) -> list[str]:
        """Return the ids of the records that the filter admits, in order of insertion."""
        clause = self._collection.admitted(filter)
        return [
            id_of(point.payload) for point in self._collection.in_order(clause, payload=ID_FIELDS)
        ]

    def pages(self, *, filter: Filter | None = None, size: int = 1000) -> Iterator[list[Record]]:
        """Yield the records that the filter admits, ``size`` at a time, in order of insertion."""
        check_k(size, name="size")
        return self._pages(self._collection.admitted(filter), size)

    def _pages(self, clause: Clause, size: int) -> Iterator[list[Record]]:
        page: list[Record] = []
        for point in self._collection.in_order(clause, payload=RECORD_FIELDS, size=size):
            page.append(record_of(point.payload))
            if len(page) == size:
                yield page
                page = []
        if page:
            yield page

    def optimize(self) -> None:
        """Merge what was written and build indices; a server does so by itself.

        In a folder: after many adds, and before anything is measured. It takes about a third
        of the processor time of writing (benchmarks/qdrant_index.py).
        """
        self._engine.optimize()

    def close(self) -> None:
        """Let go of the folder or the connection; a later call raises IndexUnavailableError."""
        self._engine.close()

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
        asked = self._asked(query, mode)
        limit = k or len(self)
        if asked is None or not limit:
            return Ranking((), np.zeros(0, np.float32))
        clause = self._collection.admitted(filter, ids)
        found = sorted(self._best(asked, mode, limit, clause), key=_rank)[:limit]
        scores = np.array([point.score for point in found], np.float32) / asked.tokens
        return Ranking(tuple(id_of(point.payload) for point in found), scores)

    def _best(self, asked: Asked, mode: Mode, k: int, clause: Clause) -> list[Found]:
        """Return the k best, and whatever ties with the last of them: insertion decides."""
        limit = k + 1
        while True:
            search = Nearest(
                mode, asked.vector, limit, filter=clause, exact=self._exact, payload=ID_FIELDS
            )
            (found,) = self._engine.query([search])
            if len(found) < limit or found[-1].score < found[k - 1].score:
                return found
            limit *= 2

    def score(self, query: Query, mode: Mode, ids: Sequence[str]) -> Floats:
        """Return (n,) scores of the given records; InputError for an unknown id."""
        self._check_query(query, mode)
        wanted = check_ids(ids, name="score")
        if not wanted:
            return np.zeros(0, np.float32)
        check_known(wanted, set(self._known(wanted)))
        points = [point_id(id) for id in wanted]
        asked = self._asked(query, mode)
        if asked is None:
            return np.zeros(len(wanted), np.float32)
        named = HasId(frozenset(points))
        search = Nearest(
            mode, asked.vector, len(named.points), filter=named, exact=True, original=True
        )
        (found,) = self._engine.query([search])
        scores = {point.id: point.score / asked.tokens for point in found}
        return np.array([scores.get(point, 0.0) for point in points], np.float32)

    def scale(self, query: Query, mode: Mode) -> float:
        """Return the factor from a mode's score to the hybrid's range; 1 for M3's modes.

        For BM25, 1 / (a score the query cannot exceed), from the engine's own idf.
        """
        self._check_mode(mode)
        bm25 = self._collection.agreement().bm25
        terms = bm25.query(query.text) if mode == "bm25" and bm25 else None
        if mode != "bm25":
            return 1.0
        if bm25 is None or terms is None:
            return 0.0
        # the best point of one term scores its weight times the idf, and brings the weight
        probes = [Nearest("bm25", Terms([index], [1.0]), 1, payload=()) for index in terms.indices]
        best = [found[0] if found else None for found in self._engine.query(probes)]
        held = self._engine.retrieve(
            sorted({point.id for point in best if point}), payload=(), vectors=("bm25",)
        )
        bound = 0.0
        for index, count, point in zip(terms.indices, terms.values, best, strict=True):
            vector = held[point.id].vectors.get("bm25") if point and point.id in held else None
            if point and isinstance(vector, Terms) and index in vector.indices:
                weight = vector.values[vector.indices.index(index)]
                bound += count * (bm25.k1 + 1) * point.score / weight
        return 1.0 / bound if bound > 0 else 0.0

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
        """Return the k best hits of the whole hybrid search, from one request.

        The hits, scores and ranks of ``index.search.search``, which serves where the plan has a
        fusion, or a mode that is not kept.
        """
        check_k(k)
        if plan.fusion is not None or not self.modes.issuperset(plan.modes):
            return super().search(query, plan, k=k, filter=filter, ids=ids, encode=encode)
        named = None if ids is None else check_ids(ids, name="search")
        for mode in plan.modes:
            self._check_query(query, mode)
        admitted = self._collection.admitted(filter, named)
        asked = {mode: self._asked(query, mode) for mode in plan.modes}
        depths = {leg: plan.recall.depth(leg) for leg in plan.legs}
        most = len(self) or 1 if None in depths.values() else 0
        request = HybridRequest(
            plan,
            asked={mode: value for mode, value in asked.items() if value is not None},
            depths={leg: depth or most for leg, depth in depths.items()},
            scales={mode: self.scale(query, mode) for mode in plan.weighted},
            admitted=admitted,
            exact=self._exact,
        )
        return request.search(self._engine, k)

    def _asked(self, query: Query, mode: Mode) -> Asked | None:
        return asked_of(query, mode, self._collection.agreement())


def _rank(point: Found) -> tuple[float, int, str]:
    return -point.score, *insertion(point)
