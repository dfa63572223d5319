"""A table in memory that follows the file of a durable index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import InputError
from m3_retrievers.index.base import TermWeighting
from m3_retrievers.index.durable.file import Counters, DurableFile, digest_sum
from m3_retrievers.index.durable.opening import Restore
from m3_retrievers.index.durable.reading import Layout, pieces
from m3_retrievers.index.durable.vectors import DiskVectors
from m3_retrievers.index.durable.writing import BATCH_ROWS, live_rows
from m3_retrievers.index.stores.compressed import ColbertDtype, kept_width
from m3_retrievers.index.stores.stores import Stores
from m3_retrievers.index.table import Table


class FollowingTable:
    """The table of a file, brought up to date inside the caller's transactions.

    at: where the file stood when memory last followed it. None where memory may be half done:
    then it is loaded again.
    """

    def __init__(
        self,
        file: DurableFile,
        settings: Mapping[str, Any],
        *,
        restore: Restore | None,
        on_disk: bool,
    ) -> None:
        """Start empty; settings are the file's own, on_disk says where token vectors are."""
        self._file = file
        self._settings = settings
        self._restore = restore
        self.on_disk = on_disk
        self.at: Counters | None = None
        self.table: Table

    def follow(self) -> Counters:
        """Bring the table to the state that the open transaction sees, and return that."""
        now, at = self._file.counters(), self.at
        if now == at:
            return now
        self.at = None
        if at is None or now.epoch != at.epoch or at.change < now.horizon:
            self._load(now)
        else:
            self._catch_up(at, now)
        self.at = now
        return now

    def vocabulary(self) -> list[str]:
        """Return the terms that the weighting knows, by column."""
        weighting = self.table.stores.weighting
        terms: list[str] = [] if weighting is None else weighting.state().get("vocabulary", [])
        return terms

    def batches(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield what batches keep of a table without dead rows."""
        keys, stores = live_rows(self._file), self.table.stores
        for first in range(0, len(keys), BATCH_ROWS):
            rows = np.arange(first, min(len(keys), first + BATCH_ROWS))
            arrays = {"rows": keys[rows], **stores.rows(rows)}
            if "colbert" in stores.stored:
                arrays["colbert.lengths"] = stores.colbert.lengths(rows)
                width = kept_width(stores.colbert.width or 0, stores.colbert.dtype)
                arrays["colbert.width"] = np.array([width], np.int64)
            if stores.weighted is not None:
                arrays |= stores.weighted.rows(rows)
            yield arrays

    def _load(self, now: Counters) -> None:
        dtype: ColbertDtype = self._settings["colbert_dtype"]
        stores = Stores(
            self._settings["modes"],
            weighting=self._weighting(now),
            colbert_dtype=dtype,
            colbert_pool_factor=self._settings["colbert_pool_factor"],
            colbert=DiskVectors(self._file.vectors, dtype=dtype) if self.on_disk else None,
        )
        # its dead rows are dropped together with those of the file
        self.table = Table(stores, compacting=False)
        check = self._take(now, after=-1)
        if len(self.table) != now.documents or check != now.check:
            raise self._file.corrupt("documents are missing, or there are too many")

    def _catch_up(self, at: Counters, now: Counters) -> None:
        table, weighted = self.table, self.table.stores.weighted
        # one that was deleted and is there again comes with the rows below
        table.delete(table.known(list(dict.fromkeys(self._file.removed(at.change)))))
        weighting = self._weighting(now) if now.terms > at.terms else None
        if weighted is not None and weighting is not None:
            weighted.renew(weighting)
        self._take(now, after=at.next - 1)
        if len(table) != now.documents:
            self._load(now)

    def _take(self, now: Counters, *, after: int) -> int:
        """Append the live documents of rows above ``after``; returns the sum of their digests."""
        layout = Layout(
            outputs=self.table.stores.stored,
            terms=now.terms if self._settings["weighting"] else None,
            colbert_dtype=self._settings["colbert_dtype"],
            on_disk=self.on_disk,
        )
        check = 0
        for piece in pieces(self._file, layout, after=after):
            try:
                self.table.extend(piece.records, piece.arrays)
            except InputError as error:  # of another width than what came before
                raise self._file.corrupt(str(error)) from error
            check = digest_sum(check, plus=piece.digests)
        return check

    def _weighting(self, now: Counters) -> TermWeighting | None:
        state = self._settings["weighting"]
        if state is None or self._restore is None:
            return None
        terms = self._file.vocabulary(now.terms)
        try:
            return self._restore({**state, "vocabulary": terms})
        except (KeyError, TypeError, AttributeError, InputError) as error:
            raise self._file.corrupt(
                f"its weighting cannot be made again ({error}), at least not by the restore= given"
            ) from error
