"""What a local index holds, without its lock: records, the rows they own, and their stores."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import check_distinct, check_known
from m3_retrievers.index.base import Filter
from m3_retrievers.index.filters import FilteredRows
from m3_retrievers.index.stores.live import LiveRows
from m3_retrievers.index.stores.stores import Stores
from m3_retrievers.types.hits import Query, Ranking, Record
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import Representations

# Deleted rows stay until there are this many and they outnumber the live ones, so that a
# delete costs nothing and memory stays below twice what the documents need.
_DEAD_ROWS_KEPT = 1_000


def too_many_dead(dead: int, *, live: int) -> bool:
    """Whether so many rows were deleted that an index is to drop them."""
    return dead > max(_DEAD_ROWS_KEPT, live)


class Table:
    """Records by row, in order of insertion, in step with the stores of their representations.

    A change happens as a whole or not at all, also where it is interrupted. Not safe between
    threads.
    """

    def __init__(
        self, stores: Stores, records: Sequence[Record] = (), *, compacting: bool = True
    ) -> None:
        """Start with stores that hold a row for each of the records.

        compacting: whether it drops dead rows by itself, or leaves that to its owner.
        """
        self.stores = stores
        self._compacting = compacting
        self._filtered = FilteredRows()
        self._number(list(records))

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, id: object) -> bool:
        return id in self._row_of

    @property
    def live(self) -> LiveRows:
        """Which rows are alive."""
        return self._live

    def records(self, rows: NDArray[np.int64]) -> list[Record]:
        """Return the records of the given rows, themselves and not copies."""
        return [self._records[row] for row in rows]

    def ids(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the ids of the given rows."""
        return tuple(self._records[row].id for row in rows)

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each id; InputError for an unknown one."""
        check_known(ids, self._row_of)
        return np.array([self._row_of[id] for id in ids], np.int64)

    def known(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that are known, in the order given."""
        return [id for id in ids if id in self._row_of]

    def admitted(self, filter: Filter | None) -> NDArray[np.bool_] | None:
        """Return the mask (n,) of the rows that a filter admits; None for every row there is."""
        return self._filtered.rows(
            filter, self._records, live=self._live.mask, generation=self._live.generation
        )

    def recall(
        self,
        query: Query,
        mode: Mode,
        *,
        k: int | None,
        filter: Filter | None,
        ids: Collection[str] | None,
    ) -> Ranking:
        """Return the k best of one mode, of the rows that filter and ids admit."""
        return self.recall_many([query], mode, k=k, filter=filter, ids=ids)[0]

    def recall_many(
        self,
        queries: Sequence[Query],
        mode: Mode,
        *,
        k: int | None,
        filter: Filter | None,
        ids: Collection[str] | None,
    ) -> list[Ranking]:
        """Return what ``recall`` does for each query."""
        admitted = self.admitted(filter)
        if ids is not None:
            named = np.zeros(len(self._records), bool)
            named[self.rows(self.known(list(ids)))] = True
            admitted = named if admitted is None else admitted & named
        found = self.stores.search_many(queries, mode, k=k, admitted=admitted, live=self._live)
        return [Ranking(self.ids(rows), scores) for rows, scores in found]

    def score(self, query: Query, mode: Mode, ids: Sequence[str]) -> Floats:
        """Return (n,) scores of the given records in one mode."""
        return self.stores.score(query, mode, self.rows(ids), live=self._live)

    # Changes

    def incoming(
        self, records: Sequence[Record], representations: Representations
    ) -> Mapping[str, NDArray[Any]]:
        """Return arrays for ``extend``, after all checks; readers may go on meanwhile."""
        check_distinct([record.id for record in records])
        self.stores.check(representations, count=len(records))
        return self.stores.incoming([record.text for record in records], representations)

    def extend(
        self,
        records: Sequence[Record],
        arrays: Mapping[str, NDArray[Any]],
        *,
        merge: bool = True,
    ) -> None:
        """Append records in place of those with the same ids, from ``incoming``.

        merge: as for ``InvertedIndex.append``.
        """
        with self._changing():
            self.stores.extend(arrays, merge=merge)
            self._book(records)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove records, each id known and given once."""
        with self._changing():
            self._bury(ids)

    def _book(self, records: Sequence[Record]) -> None:
        """Append records to which the stores have rows already."""
        ids = [record.id for record in records]
        first = len(self._records)
        self._records += records
        self._live.append(len(records))
        self._bury(self.known(ids))
        self._row_of.update((id, first + at) for at, id in enumerate(ids))

    def _bury(self, ids: Sequence[str]) -> None:
        self._live.delete(np.array([self._row_of.pop(id) for id in ids], np.int64))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep every store in step with the records, also after an error or a Ctrl-C in between.

        A change extends the stores before the records, so dropping what no live record owns
        leaves the index as it was before, or with the whole change.
        """
        done = False
        try:
            yield
            done = True
        finally:
            dead = len(self._records) - len(self)
            if not done or (self._compacting and too_many_dead(dead, live=len(self))):
                self.compact()

    def compact(self) -> None:
        """Drop the dead rows; those that are alive are numbered anew, in their order."""
        # of two live rows with one id, left by an upsert cut short, the later one counts
        rows = {self._records[row].id: row for row in self._live.rows[: len(self._records)]}
        kept = np.array(sorted(rows.values()), np.int64)
        self.stores = self.stores.keep(kept)
        self._number([self._records[row] for row in kept])

    def _number(self, records: list[Record]) -> None:
        """Take records as rows 0, 1, …, all of them alive."""
        self._records = records
        self._row_of = {record.id: row for row, record in enumerate(records)}
        self._live = LiveRows(len(records))
