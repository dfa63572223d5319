"""Beyond one call: opened again, bound to a model, closed, used from elsewhere and at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from m3_retrievers.errors import (
    DuplicateIdError,
    IndexModelError,
    IndexUnavailableError,
    InputError,
    MissingOutputError,
)
from m3_retrievers.index.base import Index, PersistentIndex
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.testing.agreement import same_hits, same_records, same_vectors
from m3_retrievers.testing.cases import MODEL, Cases, calls, contents, persistent
from m3_retrievers.testing.samples import COUNT, VALUES, question, records, represent, valued
from m3_retrievers.types.hits import Record
from m3_retrievers.types.plan import Plan

OTHER = {**MODEL, "fingerprint": "another"}


class Lasts(Cases):
    """A persistent index is the same whoever opens it; any index serves several threads."""

    # Opened again

    def test_opened_again_it_is_the_same(
        self, filled: Index, reopen: Callable[[], Index], reference: LocalIndex
    ) -> None:
        filled.delete(["d08", "d01"])
        filled.upsert([Record("d02", "new", {"a": 1})], represent(1, seed=9))
        reference.delete(["d08", "d01"])
        reference.upsert([Record("d02", "new", {"a": 1})], represent(1, seed=9))
        before = contents(filled)
        with self._again(filled, reopen) as again:
            assert contents(again) == before
            assert again.modes == frozenset(self.outputs)
            plan = Plan(outputs=tuple(self.outputs))
            hits = again.search(question(), plan, k=10).hits
            whole = reference.search(question(), plan, k=1_000).hits
            bounds = self.tolerances(plan)
            same_hits(hits, whole, k=10, plan=plan, tolerances=bounds)
            ids = reference.where(None)
            same_vectors(
                again.vectors(ids),
                reference.vectors(ids),
                outputs=self.outputs,
                tolerances=self.tolerances(),
            )
            wide = represent(1, seed=9)
            again.add([Record("after", "")], wide)
            assert "after" in again

    def test_opened_again_it_has_every_kind_of_metadata(
        self, index: Index, reopen: Callable[[], Index]
    ) -> None:
        index.add(valued(), represent(len(VALUES) + 1))
        with self._again(index, reopen) as again:
            same_records(again.get(again.where(None)), valued())

    def test_opened_again_while_empty_it_is_empty(
        self, index: Index, reopen: Callable[[], Index]
    ) -> None:
        with self._again(index, reopen) as again:
            assert contents(again) == (0, [], [])
            again.add(records(2), represent(2))
            assert len(again) == 2

    def test_emptied_and_opened_again_it_is_empty(
        self, filled: Index, reopen: Callable[[], Index]
    ) -> None:
        filled.delete(filter={})
        with self._again(filled, reopen) as again:
            assert contents(again) == (0, [], [])
            again.add(records(2), represent(2))
            assert again.recall(question(), "dense", k=9).ids

    # Whose it is

    def test_another_model_is_refused(self, index: Index, reopen: Callable[[], Index]) -> None:
        bound = persistent(index)
        assert bound.bind(MODEL) == {}
        index.add(records(3), represent(3))
        assert bound.bind(MODEL) == {}
        with pytest.raises(IndexModelError, match="another"):
            bound.bind(OTHER)
        assert bound.bind(MODEL) == {}
        with self._again(index, reopen) as again:
            with pytest.raises(IndexModelError, match="a model"):
                persistent(again).bind(OTHER, extra={"lost": 1})
            assert persistent(again).bind(MODEL) == {}
            assert len(again) == 3

    def test_extra_is_kept_until_it_is_replaced(
        self, index: Index, reopen: Callable[[], Index]
    ) -> None:
        bound = persistent(index)
        extra = {"weights": {"dense": 1.5, "legs": ["dense", None]}, "ü'\"": "🦊"}
        assert bound.bind(MODEL, extra=extra) == extra
        assert bound.bind(MODEL) == extra
        with self._again(index, reopen) as again:
            assert persistent(again).bind(MODEL) == extra
            assert persistent(again).bind(MODEL, extra={"new": 1}) == {"new": 1}
            assert persistent(again).bind(MODEL) == {"new": 1}
            assert persistent(again).bind(MODEL, extra={}) == {}
            assert len(again) == 0, "the note counts as no document"

    def test_the_precision_that_was_noted_first_stays(
        self, index: Index, reopen: Callable[[], Index]
    ) -> None:
        first = {**MODEL, "precision": "fp16"}
        persistent(index).bind(first)
        for extra in (None, {"new": 1}):
            persistent(index).bind({**MODEL, "precision": "fp32"}, extra=extra)
            assert persistent(index).note()["model"] == first
        with self._again(index, reopen) as again:
            assert persistent(again).note()["model"] == first

    def test_a_precision_that_is_not_known_stays_so(self, index: Index) -> None:
        persistent(index).bind(MODEL)
        persistent(index).bind({**MODEL, "precision": "fp32"}, extra={"new": 1})
        assert persistent(index).note()["model"] == MODEL

    # Closed and gone

    def test_a_closed_index_says_so(self, filled: Index) -> None:
        persistent(filled).close()
        persistent(filled).close()  # twice is once
        for call in calls(filled):
            with pytest.raises(IndexUnavailableError, match="closed"):
                call()

    def test_an_engine_that_is_gone_is_an_error_in_time(self, unreachable: Index) -> None:
        for call in calls(unreachable):
            started = time.monotonic()
            with pytest.raises(IndexUnavailableError):
                call()
            assert time.monotonic() - started < self.timeout

    # From elsewhere

    def test_two_handles_see_each_other_s_changes(
        self, index: Index, reopen: Callable[[], Index]
    ) -> None:
        self._takes_two(index)
        with self._beside(reopen) as other:
            assert contents(other) == (0, [], [])
            index.add(records(10), represent(COUNT)[:10])
            self._agree(index, other)
            assert other.delete(["d03"]) == ["d03"]
            self._agree(index, other)
            other.upsert([Record("d04", "new", {"even": "no"})], represent(1, seed=9))
            self._agree(index, other)
            assert index.where({"even": "no"}) == ["d04"]
            index.delete(filter={})
            self._agree(index, other)
            other.add(records(2), represent(2))
            self._agree(index, other)

    def test_two_handles_keep_the_rules_between_them(
        self, index: Index, reopen: Callable[[], Index]
    ) -> None:
        self._takes_two(index)
        with self._beside(reopen) as other:
            index.add(records(2), represent(2))
            with pytest.raises(DuplicateIdError):
                other.add(records(1), represent(1))
            with pytest.raises(MissingOutputError):
                other.add(records(1, first=5), represent(1).select(["sparse"]))
            persistent(index).bind(MODEL, extra={"a": 1})
            assert persistent(other).bind(MODEL) == {"a": 1}
            with pytest.raises(IndexModelError):
                persistent(other).bind(OTHER)

    # At once

    def test_threads_may_add_and_search_at_once(self, index: Index, reference: LocalIndex) -> None:
        plan = Plan(outputs=tuple(self.outputs))
        done = threading.Event()

        def add(first: int) -> None:
            for at in range(first, first + 10, 2):
                index.add(records(2, first=at), represent(COUNT)[at : at + 2])

        def search() -> int:
            searches = 0
            while not done.is_set() or not searches:
                hits = index.search(question(), plan, k=5).hits
                assert len({hit.id for hit in hits}) == len(hits) <= 5
                assert all(hit.text == f"text number {int(hit.id[1:])}" for hit in hits)
                searches += 1
            return searches

        with ThreadPoolExecutor(6) as pool:
            searching = [pool.submit(search) for _ in range(2)]
            adding = [pool.submit(add, first) for first in range(0, COUNT, 10)]
            try:
                for one in adding:
                    one.result()
            finally:
                done.set()
            assert all(one.result() for one in searching)
        assert sorted(index.where(None)) == reference.where(None)
        found = index.search(question(), plan, k=10).hits
        whole = reference.search(question(), plan, k=1_000).hits
        bounds = self.tolerances(plan)
        # ranks of ties aside, which came first is the threads' business
        same_hits(found, whole, k=10, plan=plan, tolerances=bounds)

    def test_a_record_and_its_vectors_change_together(self, index: Index) -> None:
        """Two threads replace one record by turns: what is read beside them is one or the other."""
        sides = {"left": represent(COUNT)[:1], "right": represent(COUNT)[1:2]}
        scored = {side: _dense(made) for side, made in sides.items()}
        index.add([Record("d", "left")], sides["left"])

        def replace(side: str) -> None:
            for _ in range(10):
                index.upsert([Record("d", side)], sides[side])

        plan = Plan(legs=("dense",), outputs=("dense",))
        with ThreadPoolExecutor(2) as pool:
            changing = [pool.submit(replace, side) for side in sides]
            while self.snapshots and not all(one.done() for one in changing):
                (hit,) = index.search(question(), plan, k=2).hits
                assert abs(hit.score - scored[hit.text]) <= self.tolerance + 1e-6
            for one in changing:
                one.result()
        (record,) = index.get(["d"])
        assert index.where(None) == ["d"]
        assert abs(index.score(question(), "dense", ["d"])[0] - scored[record.text]) <= (
            self.tolerance + 1e-6
        )

    def test_of_two_that_add_one_id_one_is_told(self, index: Index) -> None:
        def add(text: str) -> str | None:
            try:
                index.add([Record("d", text)], represent(1))
            except (DuplicateIdError, InputError):
                return None
            return text

        with ThreadPoolExecutor(4) as pool:
            added = [text for text in pool.map(add, "abcdefgh") if text]
        assert [record.text for record in index.get(["d"])] == added
        assert len(index) == 1

    @contextmanager
    def _again(self, index: Index, reopen: Callable[[], Index]) -> Iterator[Index]:
        """Close an index that can be closed, and give it opened anew."""
        if isinstance(index, PersistentIndex):
            index.close()
        with self._beside(reopen) as again:
            yield again

    @contextmanager
    def _beside(self, reopen: Callable[[], Index]) -> Iterator[Index]:
        again = reopen()
        try:
            yield again
        finally:
            if isinstance(again, PersistentIndex):
                again.close()

    def _takes_two(self, index: Index) -> None:
        persistent(index)
        if not self.two_handles:
            pytest.skip("the engine opens a place once at a time")

    def _agree(self, index: Index, other: Index) -> None:
        assert contents(index) == contents(other)
        ids = index.where(None)
        plan = Plan(outputs=tuple(self.outputs))
        bounds = self.tolerances(plan)
        hits, found = (one.search(question(), plan, k=COUNT).hits for one in (index, other))
        same_hits(found, hits, k=COUNT, plan=plan, tolerances=bounds)
        same_vectors(
            other.vectors(ids), index.vectors(ids), outputs=self.outputs, tolerances=bounds
        )


def _dense(made: object) -> float:
    dense, asked = made.dense, question().representations.dense  # type: ignore[attr-defined]
    return float(np.dot(dense[0], asked[0]))  # type: ignore[index]
