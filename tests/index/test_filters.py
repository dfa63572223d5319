import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers.errors import FilterError
from m3_retrievers.index.filters import compile_filter

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
