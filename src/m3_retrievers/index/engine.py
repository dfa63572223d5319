"""What is the same for every index over an engine: checks at the door, and the definitions.

An engine's own file says how records get in and out and how a leg recalls. All else is here,
by definition: scores over the vectors it gives back, the hybrid search over recall and score.
What it can do better in one request it overrides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np

from m3_retrievers import scoring
from m3_retrievers.checks import check_distinct, check_ids, check_k, check_known, check_new
from m3_retrievers.errors import MissingOutputError
from m3_retrievers.index import search as hybrid_search
from m3_retrievers.index.base import Encode, Filter, TermWeighting
from m3_retrievers.index.conditions import parse_filter
from m3_retrievers.index.deleting import ids_to_delete
from m3_retrievers.index.incoming import check_query, check_representations, no_rows
from m3_retrievers.index.records import check_records, stored_record
from m3_retrievers.index.snapshot.manifest import bound_record, check_model
from m3_retrievers.types.hits import Query, Ranking, Record, SearchResult
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import MODES, Mode, Plan
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations


class EngineIndex(ABC):
    """An index whose records and representations an engine keeps.

    A subclass sets ``stored`` (what is kept of each record) and ``place`` (the engine's
    address, as messages show it; never with a password), and writes the abstract methods. Those
    that begin with an underscore get arguments that were checked.
    """

    stored: tuple[Output, ...] = ALL_OUTPUTS
    place: str
    # what the engine's numbers are good for: |its score - the exact one|, in the contract's tests
    tolerance: ClassVar[float] = 1e-5
    # modes that the engine scores by itself, from the texts
    _engine_modes: tuple[Mode, ...] = ()

    # What an engine does

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _known(self, ids: Sequence[str]) -> list[str]:
        """Return those of the ids that are there, each once, in the order that breaks ties."""

    @abstractmethod
    def _put(
        self, records: Sequence[Record], representations: Representations, *, replace: bool
    ) -> None:
        """Write records whole or not at all.

        replace: whether those whose id is known give way; else DuplicateIdError for one that
        another process added since it was asked for.
        """

    @abstractmethod
    def _remove(self, ids: Sequence[str]) -> None:
        """Remove records by id."""

    @abstractmethod
    def _get(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return the records of those ids that are there, by id."""

    @abstractmethod
    def _vectors(self, ids: Sequence[str], outputs: Sequence[Output]) -> Representations:
        """Return what is kept of records that are there, a row an id, in that order."""

    @abstractmethod
    def _recall(
        self,
        query: Query,
        mode: Mode,
        *,
        k: int | None,
        filter: Filter | None,
        ids: Sequence[str] | None,
    ) -> Ranking:
        """Return the k best of one mode, of those that filter and ids admit; None for all."""

    @abstractmethod
    def _widths(self) -> Mapping[str, int]:
        """Return the width of each output that is kept; {} before anything was added.

        Every query asks for it, so an engine remembers it.
        """

    @abstractmethod
    def _read_note(self) -> dict[str, Any]:
        """Return the JSON record kept beside the documents; {} for none."""

    @abstractmethod
    def _write_note(self, note: Mapping[str, Any]) -> None:
        """Keep a JSON record beside the documents."""

    @abstractmethod
    def where(self, filter: Filter | None) -> list[str]:
        """Return the ids of the records that the filter admits, in order of insertion."""

    @abstractmethod
    def pages(self, *, filter: Filter | None = None, size: int = 1000) -> Iterator[list[Record]]:
        """Yield the records that the filter admits, ``size`` at a time, in order of insertion."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection; a later call raises IndexUnavailableError."""

    # Records in and out

    @property
    def modes(self) -> frozenset[Mode]:
        """The modes it scores."""
        return frozenset(mode for mode in MODES if mode in (*self.stored, *self._engine_modes))

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids; for a large collection ask for ``pages`` instead."""
        return tuple(self.where(None))

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and bool(self._known([id]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.place!r}, modes={sorted(self.modes)})"

    def _repr_html_(self) -> str:
        from m3_retrievers.display import markup

        modes = ", ".join(sorted(self.modes))
        facts = {"place": self.place, "documents": len(self), "modes": modes}
        return markup.facts(type(self).__name__, facts)

    def add(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert new records; raises before anything is stored.

        Raises DuplicateIdError for an id given twice or known, MissingOutputError for an
        output that is not there, InputError for counts or widths that do not fit and metadata
        that is not JSON.
        """
        kept = self._checked(records, representations)
        if kept:
            known = set(self._known([record.id for record in kept]))
            check_new([record.id for record in kept], known)
            self._put(kept, representations, replace=False)

    def upsert(self, records: Sequence[Record], representations: Representations) -> None:
        """Insert records, replacing those whose id is known."""
        kept = self._checked(records, representations)
        if kept:
            self._put(kept, representations, replace=True)

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None
    ) -> list[str]:
        """Remove the records of these ids that the filter admits; returns the ids removed.

        Unknown ids are passed over. Raises InputError where neither is given.
        """
        gone = ids_to_delete(self, ids, filter=filter)
        if gone:
            self._remove(gone)
        return gone

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return the records in the order asked for, passing over unknown ids."""
        wanted = check_ids(ids, name="get")
        found = self._get(wanted) if wanted else {}
        return [found[id] for id in wanted if id in found]

    def vectors(
        self, ids: Sequence[str], *, outputs: Sequence[Output] | None = None
    ) -> Representations:
        """Return what is kept of the given records, a row an id, in that order.

        outputs: those wanted, None for all that are kept. Raises InputError for an unknown id,
        MissingOutputError for an output that is not kept.
        """
        wanted = check_ids(ids, name="vectors")
        names = self.stored if outputs is None else tuple(outputs)
        for name in names:
            if name not in self.stored:
                raise MissingOutputError(
                    f"This index stores {self.stored}, got {name!r}. Build it with that mode."
                )
        check_known(wanted, set(self._known(wanted)))
        return self._vectors(wanted, names) if wanted else no_rows(names, self._widths())

    def in_order(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that are known, each once, in the order that breaks ties."""
        wanted = check_ids(ids, name="in_order")
        return self._known(wanted) if wanted else []

    def _checked(self, records: Sequence[Record], representations: Representations) -> list[Record]:
        kept = [stored_record(record) for record in check_records(records)]
        check_distinct([record.id for record in kept])
        if kept:
            check_representations(
                representations, stored=self.stored, count=len(kept), held=self._widths()
            )
        return kept

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
        self._check_query(query, mode)
        parse_filter(filter)  # refused here, whatever else would answer without a look at it
        named = None if ids is None else check_ids(ids, name="recall")
        if named is not None and not named:
            return Ranking((), np.zeros(0, np.float32))
        return self._recall(query, mode, k=k, filter=filter, ids=named)

    def score(self, query: Query, mode: Mode, ids: Sequence[str]) -> Floats:
        """Return (n,) scores of the given records; InputError for an unknown id."""
        self._check_query(query, mode)
        if not check_ids(ids, name="score"):
            return np.zeros(0, np.float32)
        kept = self.vectors(ids, outputs=[output_of(mode)])
        scores: Floats = scoring.by_mode(output_of(mode), query.representations, kept)[0]
        return scores

    def scale(self, query: Query, mode: Mode) -> float:  # noqa: ARG002
        """Return the factor from a mode's score to the hybrid's range; 1 for M3's modes."""
        self._check_mode(mode)
        return 1.0

    @property
    def weighting(self) -> TermWeighting | None:
        """None: the engine keeps term statistics to itself."""
        return None

    def snapshot(self) -> AbstractContextManager[object]:
        """Return a context without effect: the engine keeps no state back for a reader."""
        return nullcontext()

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

    def _check_query(self, query: Query, mode: Mode) -> None:
        """Raise for a mode there is not, and for a query that does not fit it."""
        self._check_mode(mode)
        if mode != "bm25":
            check_query(query, mode, held=self._widths())

    def _check_mode(self, mode: Mode) -> None:
        if mode not in self.modes:
            raise MissingOutputError(
                f"This index scores {sorted(self.modes)}, got {mode!r}. Build it with that mode."
            )

    # Whose it is

    def note(self) -> dict[str, Any]:
        """Return the JSON beside the documents, with ``model`` and ``extra``; {} for none."""
        return self._read_note()

    def bind(
        self, model: Mapping[str, Any], *, extra: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Bind the index to a model; returns the JSON kept beside it, {} for none.

        model: ``name``, ``fingerprint`` and, where known, ``precision``; the first call notes
        them, and afterwards another fingerprint is an IndexModelError, and the precision stays.
        extra: JSON to keep instead of what is there.
        """
        note = self._read_note()
        if "model" in note:
            check_model(self.place, saved=note["model"], given=model)
        kept = dict(note.get("extra", {}) if extra is None else extra)
        record = bound_record(saved=note.get("model", {}), given=model)
        changed = {**note, "model": record, "extra": kept}
        if changed != note:
            self._write_note(changed)
        return kept


def output_of(mode: Mode) -> Output:
    """Return the mode as the output it scores; BM25, which is none, has scores of its own."""
    if mode == "bm25":
        raise MissingOutputError("This engine scores BM25 in its recall alone, got a score asked.")
    return mode
