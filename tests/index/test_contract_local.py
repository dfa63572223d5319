"""The contract over LocalIndex; and over indexes broken on purpose, each of which it catches."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from m3_retrievers.index.local import LocalIndex
from m3_retrievers.testing import IndexContract, samples
from m3_retrievers.testing.keeping import KeepsRecords
from m3_retrievers.testing.searching import Searches
from m3_retrievers.types.hits import Ranking, Record

pytestmark = pytest.mark.slow


class TestLocalIndex(IndexContract):
    tolerance = 1e-6
    colbert_tolerance = 1e-3  # float16

    @pytest.fixture
    def index(self) -> LocalIndex:
        return LocalIndex()

    @pytest.fixture
    def reopen(self, index, tmp_path) -> Callable[[], LocalIndex]:
        def saved_and_loaded() -> LocalIndex:
            index.save(tmp_path / "index")
            return LocalIndex.load(tmp_path / "index")

        return saved_and_loaded


class TestLocalIndexWithoutColbert(Searches):
    """A home that keeps no token vectors: the candidates' are encoded."""

    outputs = ("dense", "sparse")
    tolerance = 1e-6

    @pytest.fixture
    def index(self) -> LocalIndex:
        return LocalIndex(modes=self.outputs)


class TestLocalIndexInInt8(KeepsRecords):
    tolerance = 1e-6
    colbert_tolerance = 5e-3  # half a scale of vectors of 8 numbers: 1 / 254

    @pytest.fixture
    def index(self) -> LocalIndex:
        return LocalIndex(colbert_dtype="int8")


# Each of these is wrong in one thing alone. A contract that lets one pass proves nothing.


class FiltersTooLate(LocalIndex):
    def recall(self, query, mode, *, k, filter=None, ids=None):
        found = super().recall(query, mode, k=k, ids=ids)
        admitted = set(self.where(filter))
        kept = [at for at, id in enumerate(found.ids) if id in admitted]
        return Ranking(tuple(found.ids[at] for at in kept), found.scores[kept])


class ReversesTies(LocalIndex):
    def recall(self, query, mode, *, k, filter=None, ids=None):
        found = super().recall(query, mode, k=None, filter=filter, ids=ids)
        order = sorted(range(len(found)), key=lambda at: (-found.scores[at], -at))[:k]
        return Ranking(tuple(found.ids[at] for at in order), found.scores[order])

    def in_order(self, ids):
        return super().in_order(ids)[::-1]


class KeepsTheOldText(LocalIndex):
    def upsert(self, records: Sequence[Record], representations):
        old = {record.id: record.text for record in self.get([r.id for r in records])}
        kept = [Record(r.id, old.get(r.id, r.text), r.metadata) for r in records]
        super().upsert(kept, representations)


class KeepsTheOldVectors(LocalIndex):
    def upsert(self, records, representations):
        super().upsert(records, representations)
        dense = self._table.stores.dense
        rows = np.arange(len(dense))[-len(records) :]
        for part in dense.pieces(rows).parts:
            part[:] = dense.take(rows[:1] * 0)


class IgnoresIds(LocalIndex):
    def recall(self, query, mode, *, k, filter=None, ids=None):
        return super().recall(query, mode, k=k, filter=filter)


class ScoresBeside(LocalIndex):
    def score(self, query, mode, ids):
        return super().score(query, mode, ids) + 1e-2


class RecallsBeside(LocalIndex):
    def recall(self, query, mode, *, k, filter=None, ids=None):
        found = super().recall(query, mode, k=k, filter=filter, ids=ids)
        return Ranking(found.ids, found.scores + 1e-2)


class TakesTrueForOne(LocalIndex):
    def where(self, filter):
        one = {"value": {"$eq": 1}}
        return super().where({"value": {"$in": [1, True]}} if filter == one else filter)


class DeletesByFilterAlone(LocalIndex):
    def delete(self, ids=None, *, filter=None):
        return super().delete(ids) if filter is None else super().delete(filter=filter)


class LosesTheLastPage(LocalIndex):
    def pages(self, *, filter=None, size=1000):
        return (page for page in super().pages(filter=filter, size=size) if len(page) == size)


class HandsOutItsOwn(LocalIndex):
    def get(self, ids):
        known = self._table.known(list(ids))
        return self._table.records(self._table.rows(known))


class StoresHalfOfABatch(LocalIndex):
    def add(self, records, representations):
        for at, record in enumerate(records):
            super().add([record], representations[at : at + 1])


def case(name: str, *, more: dict[str, object] | None = None) -> Callable[[LocalIndex], None]:
    def run(index: LocalIndex) -> None:
        contract = TestLocalIndex()
        method = getattr(contract, name)
        wanted = method.__code__.co_varnames[1 : method.__code__.co_argcount]
        given = {"index": index, **(more or {})}
        if "filled" in wanted:
            index.add(samples.records(samples.COUNT), samples.represent(samples.COUNT))
            given["filled"] = index
        if "reference" in wanted:
            exact = LocalIndex(colbert_dtype="float32")
            exact.add(samples.records(samples.COUNT), samples.represent(samples.COUNT))
            given["reference"] = exact
        method(**{key: given[key] for key in wanted})

    return run


DENSE = {"mode": "dense"}
EQUAL = DENSE | {"operator": "$eq"}
SEARCH = {"legs": ("dense",), "order": "default"}
CAUGHT = [
    (FiltersTooLate, case("test_a_filter_applies_before_the_best_k", more=EQUAL)),
    (FiltersTooLate, case("test_a_search_gives_the_hits_of_the_definition", more=SEARCH)),
    (ReversesTies, case("test_ties_break_as_the_index_says", more=DENSE)),
    (ReversesTies, case("test_a_cut_through_ties_keeps_the_first_of_them", more=DENSE)),
    (ReversesTies, case("test_tied_hits_come_in_the_order_of_ties", more={"order": "default"})),
    (KeepsTheOldText, case("test_an_upsert_replaces_all_of_a_record")),
    (KeepsTheOldVectors, case("test_an_upsert_replaces_all_of_a_record")),
    (IgnoresIds, case("test_recall_ranks_by_the_exact_score", more=DENSE)),
    (IgnoresIds, case("test_a_search_gives_the_hits_of_the_definition", more=SEARCH)),
    (ScoresBeside, case("test_scores_come_in_the_order_asked_for", more=DENSE)),
    (ScoresBeside, case("test_a_search_gives_the_hits_of_the_definition", more=SEARCH)),
    (RecallsBeside, case("test_recall_ranks_by_the_exact_score", more=DENSE)),
    (TakesTrueForOne, case("test_an_operator_admits_what_it_should", more={"operator": "$eq"})),
    (DeletesByFilterAlone, case("test_delete_by_ids_and_filter_takes_those_that_both_name")),
    (LosesTheLastPage, case("test_pages_list_every_record_once")),
    (HandsOutItsOwn, case("test_what_comes_back_may_be_changed")),
    (StoresHalfOfABatch, case("test_ids_that_are_known_are_not_added")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "run"), CAUGHT, ids=[f"{b.__name__}-{at}" for at, (b, _) in enumerate(CAUGHT)]
)
def test_an_index_that_is_wrong_in_one_thing_is_caught(broken, run):
    run(LocalIndex())  # the case itself passes
    with pytest.raises(AssertionError):
        run(broken())
