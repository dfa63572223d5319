"""A collection with its note: opened, made by the first add, written, and read in order."""

from __future__ import annotations

import secrets
from collections.abc import Collection as Members
from collections.abc import Iterator, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any

from m3_retrievers.errors import DuplicateIdError, IndexUnavailableError, InputError
from m3_retrievers.index.base import Filter
from m3_retrievers.index.conditions import parse_filter
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.index.incoming import check_representations, widths_of
from m3_retrievers.index.qdrant.agreed import Agreement
from m3_retrievers.index.qdrant.filters import NUMBERS, numbers, translated
from m3_retrievers.index.qdrant.points import (
    InsertionNumbers,
    metadata_of,
    payload_of,
    point_id,
    vectors_of,
)
from m3_retrievers.index.qdrant.requests import (
    EVERYTHING,
    Clause,
    Engine,
    Every,
    Found,
    HasId,
    Match,
    Point,
    Span,
    Terms,
    Vector,
)
from m3_retrievers.types.hits import Record
from m3_retrievers.types.representations import Representations

# A server refuses a body above 32 MB, and a number takes some 12 characters of JSON; in this
# process the lists of Python numbers take as many bytes.
_NUMBERS_AT_ONCE = 1_500_000
_PAGE = 1000
# Fields beyond these are filtered without an index, as a collection of free keys would have it.
_INDEXED_FIELDS = 50


class QdrantCollection:
    """What ``QdrantIndex`` stands on, in terms of records, notes and clauses."""

    def __init__(self, engine: Engine, agreement: Agreement) -> None:
        self.engine = engine
        self._agreement, self._numbers = agreement, InsertionNumbers()
        self._newest: int | None = None
        self._indexed: set[str] = set()
        self._making = Lock()

    # The note

    def agreement(self) -> Agreement:
        """Return what the collection holds; what was asked for where there is none yet."""
        if not self._agreement.made:
            self.note()
        return self._agreement

    def note(self) -> dict[str, Any]:
        """Return the collection's note, {} without one; adopts what it says."""
        note = self.engine.read_note()
        if note.get("foreign"):
            raise InputError(
                f"The collection {self.engine.place!r} was not made by m3-retrievers. Choose "
                "another collection=; the frameworks' own stores read collections of theirs."
            )
        if "widths" in note:
            self._agreement = self._agreement.joined(note, self.engine.place)
        return note

    def _made(self, representations: Representations, texts: Sequence[str]) -> Agreement:
        """Return the agreement of a collection that is there from now on."""
        agreement = self.agreement()
        if not agreement.made:
            widths = widths_of(representations, agreement.stored)
            started = agreement.started(widths, texts)
            self.engine.create(started.layout, {**self.note(), **started.note()})
            agreement = self.agreement()  # another process may have been first
            check_representations(
                representations, stored=agreement.stored, count=len(texts), held=agreement.widths
            )
        return agreement

    # Records in and out

    def write(
        self, records: Sequence[Record], representations: Representations, *, only_new: bool
    ) -> None:
        """Write records; only_new: DuplicateIdError, and none of them, for an id that is there."""
        with self._making:
            agreement = self._made(representations, [record.text for record in records])
            self._index_numbers(records)
        call = secrets.token_hex(8)
        taken = self._numbers.take(len(records), after=self._last_number())
        points = self._points(records, representations, agreement, taken, call)
        ids = frozenset(point_id(record.id) for record in records)
        ours = Every((HasId(ids), Match("call", (call,))))
        try:
            for part in _parts(points):
                self.engine.upsert(part, only_new=only_new)
        except IndexUnavailableError:
            if only_new:  # of a call in several parts, the first ones
                with suppress(IndexUnavailableError):
                    self.engine.delete(ours)
            raise
        if only_new:
            self._check_ours(records, call, ours)

    def _index_numbers(self, records: Sequence[Record]) -> None:
        """Have the engine index the fields that have numbers, each once: ranges read them."""
        keys = {key for record in records for key in numbers(record.metadata)} - self._indexed
        for key in sorted(keys)[: _INDEXED_FIELDS - len(self._indexed)]:
            self.engine.index_numbers(f"{NUMBERS}.{key}")
            self._indexed.add(key)

    def _check_ours(self, records: Sequence[Record], call: str, ours: Clause) -> None:
        """Undo an add of which another writer was faster with some id, and say so."""
        found = self.engine.retrieve([point_id(r.id) for r in records], payload=("call",))
        for record in records:
            point = found.get(point_id(record.id))
            if point is not None and point.payload["call"] != call:
                self.engine.delete(ours)
                raise DuplicateIdError(
                    f"add expects new ids, got {record.id!r:.80}, which another writer has just "
                    "added. Use upsert to replace it, or another id."
                )

    def _points(
        self,
        records: Sequence[Record],
        representations: Representations,
        agreement: Agreement,
        taken: range,
        call: str,
    ) -> Iterator[Point]:
        tokens = representations.colbert if "colbert" in agreement.stored else None
        for row, record in enumerate(records):
            vectors = vectors_of(representations, agreement.stored, row)
            if agreement.bm25 and agreement.average_length:
                terms = agreement.bm25.document(record.text, agreement.average_length)
                vectors |= {"bm25": terms} if terms else {}
            bare = tokens is not None and not len(tokens[row])
            payload = payload_of(record, number=taken[row], call=call, bare=bare)
            yield Point(point_id(record.id), vectors, payload)

    def _last_number(self) -> int:
        """Return the highest number that was there when this index first wrote."""
        if self._newest is None:
            last = self.engine.scroll(EVERYTHING, limit=1, payload=("n",), newest=True)
            self._newest = max((point.payload["n"] for point in last), default=0)
        return self._newest

    # Filters, and all records in order

    def admitted(self, filter: Filter | None, ids: Members[str] | None = None) -> Clause:
        """Return what a filter and ids admit, exactly.

        What Qdrant cannot decide is decided here, over the metadata of what the rest admits.
        """
        clause, same = translated(parse_filter(filter))
        if ids is not None:
            clause = Every((HasId(frozenset(map(point_id, ids))), clause))
        if same:
            return clause
        test = compile_filter(filter)
        points = self.in_order(clause, payload=("n", "metadata"))
        return HasId(frozenset(p.id for p in points if test(metadata_of(p.payload))))

    def in_order(
        self, clause: Clause, *, payload: tuple[str, ...], size: int = _PAGE
    ) -> Iterator[Found]:
        """Yield all points under a clause in order of insertion; payload: with ``n``."""
        seen: set[str] = set()
        last = 0
        while True:
            # two writers may have given one number: those with the last one are asked for again
            rest = Every((clause, Span("n", gte=float(last))))
            page = self.engine.scroll(rest, limit=size + len(seen), payload=payload)
            fresh = [point for point in page if point.id not in seen]
            if not fresh:
                return
            yield from fresh
            last = fresh[-1].payload["n"]
            seen = {point.id for point in page if point.payload["n"] == last}


def _parts(points: Iterator[Point]) -> Iterator[list[Point]]:
    """Cut points into runs of a size that one request carries, a large one by itself."""
    part: list[Point] = []
    held = 0
    for point in points:
        size = sum(map(_size, point.vectors.values()))
        if part and held + size > _NUMBERS_AT_ONCE:
            yield part
            part, held = [], 0
        part.append(point)
        held += size
    if part:
        yield part


def _size(vector: Vector) -> int:
    if isinstance(vector, Terms):
        return 2 * len(vector.indices)
    first = vector[0] if vector else 0.0
    return len(vector) * (len(first) if isinstance(first, list) else 1)
