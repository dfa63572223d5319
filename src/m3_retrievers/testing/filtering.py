"""Metadata filters: what each operator admits, before any leg takes its best k."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from m3_retrievers.errors import FilterError
from m3_retrievers.index.base import Filter, Index
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.testing.agreement import same_ranking
from m3_retrievers.testing.cases import Cases, alike, contents, scores_of
from m3_retrievers.testing.samples import COUNT, VALUES, question, represent, valued
from m3_retrievers.types.hits import Record
from m3_retrievers.types.plan import Plan, Recall

_ORDERED = (0, 1, 1.5, -2, 2**53, 2**53 + 1, 10**30, -1e300, "", "a", "B", "straße", "日本")
_BOUNDS = (float("inf"), float("-inf"))
_TEXTS = ("", "a", "A", "SS", "ß", "null", "100%", "_", "\\", "'", "本", "%a")
OPERANDS: dict[str, Sequence[Any]] = {
    "$eq": VALUES,
    "$ne": VALUES,
    "$in": [[], list(VALUES), *([value, "absent"] for value in VALUES)],
    "$nin": [[], list(VALUES), *([value, "absent"] for value in VALUES)],
    "$gt": [*_ORDERED, *_BOUNDS],
    "$gte": [*_ORDERED, *_BOUNDS],
    "$lt": [*_ORDERED, *_BOUNDS],
    "$lte": [*_ORDERED, *_BOUNDS],
    "$exists": [True, False],
    "$empty": [True, False],
    "$text": _TEXTS,
    "$itext": _TEXTS,
}
COMBINED: Sequence[Filter] = (
    {},
    {"value": 1, "other": 1},
    {"value": 1, "other": 2},
    {"value": {"$gte": 0, "$lt": 2}},
    {"value": {"$gt": 0, "$ne": 1}},
    {"value": {"$not": {"$gt": 0}}},
    {"value": {"$not": {"$not": {"$eq": "a"}}}},
    {"value": {"$exists": True, "$empty": True}},
    {"$not": {"value": "a"}},
    {"$not": {}},
    {"$not": {"value": {"$exists": True}, "other": 1}},
    {"$and": [{"value": {"$gte": 1}}, {"value": {"$lte": 2.5}}]},
    {"$or": [{"value": None}, {"value": True}, {"value": {"$text": "a"}}]},
    {"$or": [{}]},
    {"$and": [{}, {"$not": {"$or": [{"value": 1}, {"value": {"$exists": False}}]}}]},
    {"$or": [{"$and": [{"other": 1}, {"value": "A"}]}, {"$not": {"value": {"$nin": ["b"]}}}]},
    {"other": 1, "$or": [{"value": 1}, {"value": 2}], "$not": {"value": [1, 2]}},
)
REFUSED: Sequence[Any] = (
    {"value": {"$gtt": 1}},
    {"$xor": [{}]},
    {"$gt": 1},
    {"$or": []},
    {"value": {"$in": "a"}},
    {"value": {"$exists": 1}},
    {"value": {"$gt": [1]}},
    {"value": {"$text": 1}},
    {"value": {}},
    {"value": float("nan")},
    {"value": {1: 2}},
    "value == 1",
    ["value"],
)


class Filters(Cases):
    """What ``index.conditions`` says of a filter holds in the index, in every call."""

    @pytest.mark.parametrize("operator", OPERANDS)
    def test_an_operator_admits_what_it_should(self, index: Index, operator: str) -> None:
        index.add(valued(), alike(len(VALUES) + 1))
        for operand in OPERANDS[operator]:
            _admits(index, {"value": {operator: operand}})

    def test_operators_combine(self, index: Index) -> None:
        index.add(valued(), alike(len(VALUES) + 1))
        for filter in COMBINED:
            _admits(index, filter)
        assert index.where(None) == index.where({})

    @pytest.mark.parametrize("name", ["", "a.b", "a'b", 'a"b', "ключ", "a b", "k" * 200, "a\\b"])
    def test_a_field_is_named_literally(self, index: Index, name: str) -> None:
        about: list[dict[str, Any]] = [
            {name: 1},
            {"a": {"b": 1}},
            {"other": {name: 1}},
            {name: "x"},
        ]
        index.add([Record(str(at), "", data) for at, data in enumerate(about)], represent(4))
        assert index.where({name: 1}) == ["0"]
        assert index.where({name: {"$exists": True}}) == ["0", "3"]
        assert index.where({name: {"$ne": 1}}) == ["1", "2", "3"]
        assert index.where({name: {"$text": "x"}}) == ["3"]

    @pytest.mark.parametrize("mode", ["dense", "sparse", "colbert"])
    @pytest.mark.parametrize("operator", OPERANDS)
    def test_a_filter_applies_before_the_best_k(
        self, index: Index, mode: Any, operator: str
    ) -> None:
        """A filter that admits the worst document alone finds it with k=1."""
        if mode not in self.outputs:
            pytest.skip(f"this index keeps {tuple(self.outputs)}")
        worst, best = _marks(operator)
        index.add([Record(f"d{at:02}", "") for at in range(COUNT)], represent(COUNT))
        every = scores_of(index, question(), mode)
        last = sorted(every, key=every.__getitem__)[:2]
        ids = [f"d{at:02}" for at in range(COUNT)]
        marked = [Record(id, "", worst if id in last else best) for id in ids]
        index.upsert(marked, represent(COUNT))
        operand = {"$in": ["worst"], "$nin": ["best"], "$exists": True, "$empty": True}
        given = operand.get(operator, _BOUND.get(operator, "worst"))
        filter = {"mark": {operator: given}}
        assert sorted(index.where(filter)) == sorted(last), "the mark does not separate"
        bound = self.tolerances()[mode] + 1e-6
        admitted = {id: every[id] for id in last}
        for k in (1, 2, 3, None):
            found = index.recall(question(), mode, k=k, filter=filter)
            same_ranking(found, admitted, k=k, tolerance=bound)
        one = index.recall(question(), mode, k=2, filter=filter, ids=[last[0], "d00", "nobody"])
        assert set(one.ids) <= set(last)
        assert last[0] in one.ids

    def test_a_search_finds_what_is_admitted_alone(self, filled: Index) -> None:
        plan = Plan(recall=Recall(dense=1, lexical=1), outputs=tuple(self.outputs))
        for number in range(COUNT):
            hits = filled.search(question(), plan, k=3, filter={"number": number}).hits
            assert [hit.id for hit in hits] == [f"d{number:02}"]

    def test_a_filter_follows_a_change_of_metadata(self, filled: Index) -> None:
        assert "d04" in filled.where({"even": True})
        filled.upsert([Record("d04", "", {"even": False})], represent(1, seed=9))
        assert "d04" not in filled.where({"even": True})
        assert "d04" in filled.recall(question(), "dense", k=None, filter={"even": False}).ids

    @pytest.mark.parametrize("filter", REFUSED, ids=lambda filter: str(filter)[:30])
    def test_a_filter_that_cannot_be_read_is_refused_everywhere(
        self, index: Index, filter: Any
    ) -> None:
        plan = Plan(outputs=tuple(self.outputs))
        for _ in range(2):
            before = contents(index)
            for call in (
                lambda: index.where(filter),
                lambda: list(index.pages(filter=filter)),
                lambda: index.delete(filter=filter),
                lambda: index.delete(["d00"], filter=filter),
                lambda: index.recall(question(), "dense", k=1, filter=filter),
                lambda: index.recall(question(), "dense", k=1, filter=filter, ids=[]),
                lambda: index.search(question(), plan, k=1, filter=filter),
            ):
                with pytest.raises(FilterError, match="got"):
                    call()
            assert contents(index) == before
            index.upsert([Record("d00", "")], represent(1))  # and with something in it


_BOUND: dict[str, Any] = {
    "$ne": "best",
    "$gt": "most",
    "$gte": "worst",
    "$lt": "c",
    "$lte": "bottom",
    "$itext": "WORST",
}


def _marks(operator: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return metadata that an operator can tell apart: of what is sought, and of the others."""
    if operator == "$exists":
        return {"mark": None}, {}
    if operator == "$empty":
        return {"mark": []}, {"mark": "full"}
    if operator in ("$lt", "$lte"):
        return {"mark": "bottom"}, {"mark": "top"}
    return {"mark": "worst"}, {"mark": "best"}


def _admits(index: Index, filter: Filter) -> None:
    """Assert that an index admits the same of ``valued()`` as the filter's definition."""
    test = compile_filter(filter)
    expected = [record.id for record in valued() if test(record.metadata)]
    assert index.where(filter) == expected, filter
    assert sorted(index.recall(question(), "dense", k=None, filter=filter).ids) == expected, filter
