"""What the retriever asks of an index, whichever engine is behind it.

An index keeps records with their representations, finds the best k of each leg under a
metadata filter (*recall*), scores given documents exactly (*score*), and does both in one
hybrid *search* (see ``index.search``). It never encodes: representations come in with the
records, a ``Query`` carries its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from scipy import sparse as sp

from m3_retrievers.types.hits import Query, Ranking, Record, SearchResult
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Mode, Plan
from m3_retrievers.types.representations import Output, Representations

Filter: TypeAlias = Mapping[str, Any]
Encode: TypeAlias = Callable[[Sequence[str], Sequence[Output]], Representations]


class TermWeighting(Protocol):
    """Term weights that depend on the whole collection, as BM25's do.

    The index keeps the raw counts and calls ``fit`` again after adds and deletes, so that
    scores always equal those of a fresh fit of the documents it holds.
    """

    name: Mode

    def count(self, texts: Sequence[str]) -> sp.csr_array:
        """Return raw term counts (n, v); new terms extend the vocabulary, so v may grow."""
        ...

    def fit(self, counts: sp.csr_array) -> None:
        """Take the statistics (lengths, document frequencies) of all live documents (n, v)."""
        ...

    def impacts(self, counts: sp.csr_array) -> sp.csr_array:
        """Return float64 (n, v): what each term adds to a document's score, idf included."""
        ...

    def query(self, text: str) -> sp.csr_array:
        """Return (1, v): how often each known term occurs in the query."""
        ...

    def base(self, query: sp.csr_array) -> float:
        """Return the score of a document that holds none of the terms (0 for Okapi)."""
        ...

    def scale(self, query: sp.csr_array) -> float:
        """Return the factor that brings this query's scores into the range 0 to 1."""
        ...

    def terms(self, text: str) -> list[str]:
        """Return the terms of a text, in their order."""
        ...

    def column(self, term: str) -> int | None:
        """Return a term's column, None for one that no document has had."""
        ...

    def compacted(self, counts: sp.csr_array) -> tuple[TermWeighting, sp.csr_array]:
        """Return a weighting that knows the terms of these counts (n, v) alone, and (n, v')."""
        ...

    def state(self) -> dict[str, Any]:
        """Return a JSON record from which the class's ``from_state`` rebuilds it."""
        ...


class Index(Protocol):
    """An updatable store of records and representations.

    Ties break by insertion order; an upsert of a known id counts as a new insertion. An engine
    that cannot know that order breaks ties by id, and says so.
    """

    @property
    def modes(self) -> frozenset[Mode]:
        """The modes it can score by itself."""
        ...

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, in order of insertion."""
        ...

    def __len__(self) -> int: ...

    def __contains__(self, id: object) -> bool: ...

    def add(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert new records; DuplicateIdError, before anything is stored, if an id is known."""
        ...

    def upsert(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert records, replacing those whose id is known."""
        ...

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None
    ) -> list[str]:
        """Remove the records of these ids that the filter admits; returns the ids removed.

        Unknown ids are passed over. ids or filter may be left out, and then does not restrict;
        InputError without either: nothing is emptied by an argument that was forgotten.
        """
        ...

    def where(self, filter: Filter | None) -> list[str]:
        """Return the ids of the records that the filter admits, in order of insertion."""
        ...

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records in the order asked for, passing over unknown ids."""
        ...

    def pages(self, *, filter: Filter | None = None, size: int = 1000) -> Iterator[list[Record]]:
        """Yield the records that the filter admits, ``size`` at a time, in order of insertion.

        What is added meanwhile need not come, what is deleted meanwhile may be missing.
        """
        ...

    def vectors(
        self, ids: Sequence[str], *, outputs: Sequence[Output] | None = None
    ) -> Representations:
        """Return the stored representations of the given documents, a row an id, in that order.

        outputs: those wanted, None for all that are stored. Raises InputError for an unknown
        id, MissingOutputError for an output that is not stored.
        """
        ...

    def in_order(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that are known, each once, in order of insertion."""
        ...

    def recall(
        self,
        query: Query,
        mode: Mode,
        *,
        k: int | None,
        filter: Filter | None = None,
        ids: Collection[str] | None = None,
    ) -> Ranking:
        """Return the k best documents of one leg among those that filter and ids admit.

        ``k=None`` ranks every admitted document; ``ids=None`` admits every id, and unknown ids
        are passed over. Lexical legs leave out documents that share no term with the query.
        """
        ...

    def score(self, query: Query, mode: Mode, ids: Sequence[str]) -> Floats:
        """Return (n,) exact scores of the given documents in one mode."""
        ...

    def scale(self, query: Query, mode: Mode) -> float:
        """Return the factor that brings a mode's scores to the hybrid's range.

        1 for M3's own modes, whose scores the paper adds as they are; for BM25 see
        ``TermWeighting.scale``.
        """
        ...

    @property
    def weighting(self) -> TermWeighting | None:
        """The term weights that depend on the collection, fitted to what is in it now.

        None where the index has none, or where its engine keeps them to itself.
        """
        ...

    def snapshot(self) -> AbstractContextManager[object]:
        """Return a context in which all that is read belongs to one state of the index."""
        ...

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
        ...


@runtime_checkable
class RecallsMany(Protocol):
    """An index that recalls for several queries at once in less time than one by one."""

    def recall_many(
        self,
        queries: Sequence[Query],
        mode: Mode,
        *,
        k: int | None,
        filter: Filter | None = None,
        ids: Collection[str] | None = None,
    ) -> list[Ranking]:
        """Return what ``Index.recall`` does for each query."""
        ...


@runtime_checkable
class SavableIndex(Protocol):
    """An index that lives in this process and is written to a folder."""

    def save(
        self,
        folder: str | Path,
        *,
        model: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write it; ``model`` and ``extra`` are JSON that a load gives back."""
        ...


@runtime_checkable
class PersistentIndex(Protocol):
    """An index that outlives the process by itself: a file, or a collection of an engine."""

    def bind(
        self, model: Mapping[str, Any], *, extra: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Bind the index to a model; returns the JSON kept beside it, {} for none.

        model: ``name``, ``fingerprint`` and, where known, ``precision``; the first call notes
        them, and afterwards another fingerprint is an IndexModelError, and the precision stays.
        extra: JSON to keep instead of what is there.
        """
        ...

    def note(self) -> dict[str, Any]:
        """Return the JSON beside the documents, with ``model`` and ``extra``; {} for none."""
        ...

    def close(self) -> None:
        """Let go of files and connections; a later call raises IndexUnavailableError."""
        ...
