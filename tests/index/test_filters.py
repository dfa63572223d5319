import copy
import datetime
import json
import pickle
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers.errors import FilterError
from m3_retrievers.index.filters import FilteredRows, compile_filter
from m3_retrievers.types.hits import Record

BOOK = {"year": 2020, "lang": "en", "tags": ["ai", "ir"], "ok": True, "none": None, "price": 9.5}


@pytest.mark.parametrize(
    ("filter", "passes"),
    [
        (None, True),
        ({}, True),
        ({"lang": "en"}, True),
        ({"lang": "de"}, False),
        ({"lang": "en", "year": 2020}, True),
        ({"lang": "en", "year": 1999}, False),
        ({"year": {"$gte": 2020, "$lt": 2021}}, True),
        ({"year": {"$gt": 2020}}, False),
        ({"year": {"$lte": 2020.0}}, True),
        ({"year": {"$ne": 2020}}, False),
        ({"lang": {"$in": ["de", "en"]}}, True),
        ({"lang": {"$nin": ["de", "en"]}}, False),
        ({"tags": "ai"}, True),
        ({"tags": {"$in": ["ir", "x"]}}, True),
        ({"tags": {"$ne": "ai"}}, False),
        ({"tags": {"$nin": ["ai"]}}, False),
        ({"missing": "x"}, False),
        ({"missing": {"$gt": 0}}, False),
        ({"missing": {"$ne": "x"}}, True),
        ({"missing": {"$nin": ["x"]}}, True),
        ({"missing": {"$exists": False}}, True),
        ({"year": {"$exists": True}}, True),
        ({"lang": {"$gt": 5}}, False),
        ({"year": {"$gt": "1999"}}, False),
        ({"ok": 1}, False),
        ({"ok": True}, True),
        ({"$or": [{"lang": "de"}, {"year": 2020}]}, True),
        ({"$and": [{"lang": "en"}, {"year": 1}]}, False),
        ({"$not": {"lang": "de"}}, True),
        ({"year": {"$not": {"$gt": 2000}}}, False),
        ({"$or": [{"$and": [{"lang": "en"}, {"$not": {"year": 2020}}]}, {"price": 9.5}]}, True),
    ],
)
def test_a_filter_means_what_mongodb_means_by_it(filter, passes):
    assert compile_filter(filter)(BOOK) is passes


@pytest.mark.parametrize(
    "filter",
    [
        {"year": {"$gtt": 1}},
        {"$xor": [{}]},
        {"$or": []},
        {"$or": {"a": 1}},
        {"$and": "a"},
        {"year": {"$in": 3}},
        {"year": {"$exists": "yes"}},
        {3: "x"},
        {"$not": 3},
        "lang == en",
        [],
        0,
        # what no metadata holds would match nothing, in silence
        {"year": {1: "a"}},
        {"year": {"$eq": [{"a": {1: "a"}}]}},
        {"$and": [{"lang": "en"}, {None: 1}]},
        {"price": float("nan")},
        {"price": {"$in": [1, float("nan")]}},
        {"price": {"$lt": float("nan")}},
        {"price": Decimal("9.5")},
        {"day": datetime.date(2024, 1, 1)},
        {"ok": np.True_},
        {"tags": np.array([1, 2])},
        {"tags": [{"ai"}]},
        {"year": 10**5000},
        {"year": {"$gt": 10**5000}},
        {"year": {"$lt": [10**5000]}},
        {"year": {"$exists": 10**5000}},
        {10**5000: 1},
    ],
)
def test_a_filter_that_cannot_be_read_is_refused(filter):
    with pytest.raises(FilterError, match="got"):
        compile_filter(filter)


def test_an_unknown_operator_is_named_with_the_known_ones():
    with pytest.raises(FilterError, match=r"\$gtt.*\$gte|\$gte.*\$gtt"):
        compile_filter({"year": {"$gtt": 1}})


values = st.one_of(st.integers(-3, 3), st.sampled_from(["a", "b"]), st.booleans())
metadata = st.dictionaries(st.sampled_from("xyz"), values)


@given(metadata, st.sampled_from("xyz"), values)
def test_negations_are_the_opposite_of_what_they_negate(about, key, value):
    def passes(filter):
        return compile_filter(filter)(about)

    assert passes({key: {"$ne": value}}) is not passes({key: {"$eq": value}})
    assert passes({key: {"$nin": [value]}}) is not passes({key: {"$in": [value]}})
    assert passes({"$not": {key: value}}) is not passes({key: value})
    both = {"$and": [{key: value}, {"x": {"$exists": True}}]}
    assert passes(both) is (passes({key: value}) and "x" in about)


OPERATORS = {
    "$eq": lambda value, operand: value == operand,
    "$gt": lambda value, operand: value > operand,
    "$gte": lambda value, operand: value >= operand,
    "$lt": lambda value, operand: value < operand,
    "$lte": lambda value, operand: value <= operand,
}


def passes(filter, about) -> bool:
    """A filter read word by word, as a second opinion."""
    for key, operand in filter.items():
        if key == "$and":
            one = all(passes(part, about) for part in operand)
        elif key == "$or":
            one = any(passes(part, about) for part in operand)
        elif key == "$not":
            one = not passes(operand, about)
        else:
            ((name, value),) = operand.items()
            held = about.get(key)
            items = held if isinstance(held, list) else [held]
            alike = [item for item in items if type(item) is type(value)]
            one = any(OPERATORS[name](item, value) for item in alike)
        if not one:
            return False
    return True


kept = st.one_of(values, st.lists(values, max_size=3))
comparisons = st.dictionaries(
    st.sampled_from("xyz"),
    st.dictionaries(st.sampled_from(sorted(OPERATORS)), values, min_size=1, max_size=1),
    max_size=2,
)
filters = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
    ),
    max_leaves=6,
)


@given(filters, st.dictionaries(st.sampled_from("xyz"), kept))
def test_nested_filters_agree_with_reading_them_word_by_word(filter, about):
    assert compile_filter(filter)(about) is passes(filter, about)


def nested(depth: int, *, key: str = "$not", inner: object = None) -> dict:
    """A filter of so many mappings, one in another."""
    filter = {"x": 1} if inner is None else {"x": inner}
    for _ in range(depth - 1):
        filter = {key: filter}
    return filter


@pytest.mark.parametrize(
    "filter",
    [
        nested(101),
        nested(900),
        nested(100_000),
        {"x": {"$eq": nested(900, key="a")}},
        {"x": {"$gt": nested(100_000, key="a")}},
        {"$and": [nested(60), {"$or": [nested(99)]}]},
    ],
    ids=["101", "900", "100,000", "operand", "deep operand", "within a list"],
)
def test_a_filter_that_is_nested_too_deep_is_refused(filter):
    with pytest.raises(FilterError, match="more than 100 levels"):
        compile_filter(filter)


def test_a_filter_may_be_nested_as_deep_as_metadata():
    assert compile_filter(nested(100))({"x": 1}) is False
    assert compile_filter(nested(99))({"x": 1}) is True
    about = {"x": nested(98, key="a")}
    assert compile_filter({"x": {"$eq": nested(98, key="a")}})(about)


def test_a_filter_that_holds_itself_is_refused():
    filter = {"x": 1}
    filter["$not"] = filter
    with pytest.raises(FilterError, match="more than 100 levels"):
        compile_filter(filter)


def test_infinities_are_bounds_and_numpy_s_numbers_are_numbers():
    assert compile_filter({"price": {"$lt": float("inf"), "$gt": -float("inf")}})(BOOK)
    assert compile_filter({"year": np.int64(2020), "price": {"$gte": np.float32(9.5)}})(BOOK)
    assert not compile_filter({"year": {"$in": [10**4000]}})(BOOK)


# Masks that are remembered


class Counted(Record):
    """A record that says how often its metadata was looked at."""

    looked = 0

    def __getattribute__(self, name):
        if name == "metadata":
            Counted.looked += 1
        return super().__getattribute__(name)


def admitted(rows: FilteredRows, filter, about, *, generation=0) -> list[bool]:
    records = [Record(str(n), "", one) for n, one in enumerate(about)]
    mask = rows.rows(filter, records, live=np.ones(len(about), bool), generation=generation)
    return mask.tolist()


LIKE_ONE = [1, True, "1", 1.5, None, "True", "null", [1], ["1"], {"1": 1}, {"a": 1}, {"a": True}]


def test_one_filter_never_gets_the_mask_of_another_that_looks_like_it():
    rows = FilteredRows()
    about = [{"x": value} for value in LIKE_ONE]
    for _ in range(2):
        for value in LIKE_ONE:
            for filter in ({"x": {"$eq": value}}, {"x": {"$in": [value]}}, {"x": {"$ne": value}}):
                expected = [compile_filter(filter)(one) for one in about]
                assert admitted(rows, filter, about) == expected


def test_a_key_that_is_no_string_is_refused_also_after_its_spelling_was_asked_for():
    rows = FilteredRows()
    for right, wrong in (
        ({"1": 1}, {1: 1}),
        ({"x": {"$eq": {"1": 1}}}, {"x": {"$eq": {1: 1}}}),
        ({"x": {"$in": [{"true": 1}]}}, {"x": {"$in": [{True: 1}]}}),
    ):
        admitted(rows, right, [{"1": 1}])
        with pytest.raises(FilterError, match="no string"):
            admitted(rows, wrong, [{"1": 1}])


def test_two_halves_of_a_pair_are_not_the_character():
    rows, about = FilteredRows(), [{"x": "\U0001f600"}]
    assert admitted(rows, {"x": "\U0001f600"}, about) == [True]
    assert admitted(rows, {"x": "\ud83d\ude00"}, about) == [False]


def test_a_mask_is_made_once_for_each_state_of_the_rows():
    rows, live = FilteredRows(), np.ones(2, bool)
    records = [Counted("a", "", {"x": 1}), Counted("b", "", {"x": 2})]

    def asked(filter, generation):
        before = Counted.looked
        mask = rows.rows(filter, records, live=live, generation=generation)
        return mask.tolist(), Counted.looked - before

    assert asked({"x": 1}, 1) == ([True, False], 2)
    assert asked({"x": 1}, 1) == ([True, False], 0)
    assert asked({"x": 2}, 1) == ([False, True], 2)
    assert asked({"x": 1}, 1) == ([True, False], 0)
    assert asked({"x": 1}, 2) == ([True, False], 2)
    # a reader of an older state gets its own answer, whatever came since
    assert asked({"x": 1}, 1) == ([True, False], 2)
    # the least recently used of more than sixteen goes first
    for number in range(16):
        asked({"x": number}, 1)
        asked({"x": 15}, 1)
    assert asked({"x": 15}, 1)[1] == asked({"x": 1}, 1)[1] == 0
    assert asked({"y": 0}, 1)[1] == 2
    assert asked({"x": 0}, 1)[1] == 2


def test_masks_leave_out_the_deleted_and_cannot_be_written_into():
    rows, live = FilteredRows(), np.array([True, False, True])
    records = [Record(id, "", {"x": 1}) for id in "abc"]
    mask = rows.rows({"x": 1}, records, live=live, generation=0)
    assert mask.tolist() == [True, False, True]
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = False
    assert rows.rows(None, records, live=live, generation=0) is live
    assert rows.rows({}, records, live=np.ones(3, bool), generation=0) is None
    assert rows.rows({"x": 1}, [], live=np.ones(0, bool), generation=1).shape == (0,)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda rows: pickle.loads(pickle.dumps(rows))])
def test_a_copy_remembers_nothing_since_another_process_numbers_states_anew(copied):
    rows = FilteredRows()
    assert admitted(rows, {"x": 1}, [{"x": 1}], generation=7) == [True]
    assert admitted(copied(rows), {"x": 1}, [{"x": 2}], generation=7) == [False]


def test_a_filter_changed_after_the_call_is_another():
    rows, filter = FilteredRows(), {"x": {"$in": [1]}}
    assert admitted(rows, filter, [{"x": 1}, {"x": 2}]) == [True, False]
    filter["x"]["$in"].append(2)
    assert admitted(rows, filter, [{"x": 1}, {"x": 2}]) == [True, True]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@given(json_values, json_values)
def test_whatever_is_stored_is_found_by_itself(value, other):
    rows, about = FilteredRows(), [{"x": json.loads(json.dumps(v))} for v in (value, other)]
    for one in (value, other):
        filter = {"x": {"$eq": one}}
        expected = [compile_filter(filter)(record) for record in about]
        assert admitted(rows, filter, about) == expected
    assert admitted(rows, {"x": {"$eq": value}}, about)[0]
