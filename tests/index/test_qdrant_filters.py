"""Filters as Qdrant is asked them: exact wherever they say so, over any metadata."""

import math
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers.index.conditions import parse_filter
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.index.qdrant.filters import facts, field_key, numbers, strings, translated
from m3_retrievers.index.qdrant.requests import Every, Match, Nested, Never, Some, Span

pytestmark = pytest.mark.slow

NAMES = st.sampled_from(["a", "b", "a.b", "", 'q"uote', "ключ", "a" * 300, "\ud83d\ude00", "😀"])
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**53 + 1, 2**53 + 2, -(2**53) - 1, 10**30, 10**400, -(10**400)]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.5, -0.0, 1.0, 2.0**53, 1e300]),
)
LEAVES = st.one_of(
    st.none(), st.booleans(), NUMBERS, st.sampled_from(["", "a", "1", "true", "\ud800", "x" * 500])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
METADATA = st.dictionaries(NAMES, VALUES, max_size=4)
BOUNDS = st.one_of(NUMBERS, st.sampled_from(["", "a", math.inf, -math.inf, True]))
TESTS = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne"]), VALUES),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(VALUES, max_size=3)),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), BOUNDS),
    st.tuples(st.sampled_from(["$exists", "$empty"]), st.booleans()),
    st.tuples(st.sampled_from(["$text", "$itext"]), st.sampled_from(["", "a", "A"])),
)
FIELDS = st.builds(lambda name, test: {name: dict([test])}, NAMES, TESTS)
FILTERS = st.recursive(
    FIELDS,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=4,
)


def holds(clause, metadata):
    """Ask a clause of one record as Qdrant's documentation says it is asked."""
    if isinstance(clause, Every):
        return all(holds(part, metadata) for part in clause.parts)
    if isinstance(clause, Some):
        return any(holds(part, metadata) for part in clause.parts)
    if isinstance(clause, Never):
        return not holds(clause.part, metadata)
    if isinstance(clause, Match):
        return not {*clause.values}.isdisjoint(facts(metadata))
    if isinstance(clause, Nested):
        texts = strings(metadata).get(clause.key.removeprefix("strings."), [])
        return any(holds_of_numbers(clause.part, text) for text in texts)
    assert isinstance(clause, Span)
    found = numbers(metadata).get(clause.key.removeprefix("numbers."), [])
    return any(within(clause, one) for one in found)


def holds_of_numbers(clause, of):
    """Ask a nested clause of one object, a mapping of numbers; a key that it lacks never passes."""
    if isinstance(clause, Span):
        return clause.key in of and within(clause, of[clause.key])
    return {Every: all, Some: any}[type(clause)](holds_of_numbers(p, of) for p in clause.parts)


def within(span, number):
    bounds = (span.gt, operator.gt), (span.gte, operator.ge), (span.lt, operator.lt)
    every = (*bounds, (span.lte, operator.le))
    return all(bound is None or compare(number, bound) for bound, compare in every)


@given(FILTERS, st.lists(METADATA, min_size=1, max_size=6))
def test_a_clause_admits_what_the_filter_admits_or_more_and_says_which(filter, records):
    clause, same = translated(parse_filter(filter))
    test = compile_filter(filter)
    for metadata in records:
        admitted = holds(clause, metadata)
        assert admitted == test(metadata) if same else admitted or not test(metadata)


@given(NAMES, NUMBERS, NUMBERS, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]))
def test_numbers_compare_exactly_whatever_float64_makes_of_them(name, value, bound, operator):
    filter = {name: {operator: bound}}
    clause, same = translated(parse_filter(filter))
    if not same:  # only where the bound itself is no float64
        assert abs(bound) > 1e300 or int(float(bound)) != bound
    else:
        assert holds(clause, {name: value}) == compile_filter(filter)({name: value})


TEXTS = st.one_of(
    st.text(max_size=4),
    st.text(st.sampled_from("ab\x00"), max_size=40),
    st.sampled_from(["x" * 29, "x" * 30, "x" * 31, "é" * 15, "\ud800", "\ue000", "🦊", "日本語"]),
)


@given(TEXTS | st.lists(TEXTS, max_size=3), TEXTS, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]))
def test_strings_compare_as_python_compares_them(value, bound, operator):
    filter = {"day": {operator: bound}}
    clause, same = translated(parse_filter(filter))
    assert same == (len(bound.encode("utf-8", "surrogatepass")) < 30)
    admitted, wanted = holds(clause, {"day": value}), compile_filter(filter)({"day": value})
    assert admitted == wanted if same else admitted or not wanted


@given(METADATA)
def test_what_is_stored_for_filters_is_what_json_and_a_server_can_carry(metadata):
    for fact in facts(metadata):
        fact.encode("utf-8")
        assert len(fact) <= 200
    for key, values in numbers(metadata).items():
        assert key.isascii()
        assert all(map(math.isfinite, values))


@pytest.mark.parametrize(
    "filter",
    [
        {"lang": "de"},
        {"year": {"$gte": 2020, "$lt": 2024.5}},
        {"$or": [{"tags": {"$in": ["a", 1, None]}}, {"$not": {"ok": True}}]},
        {"a.b": {"$ne": {"nested": [1]}}},
        {"day": {"$gte": "2024-01-01", "$lt": "2024-01-31T23:59:59.999+00:00"}},
        {"x": {"$empty": True}, "y": {"$exists": False}, "z": {"$nin": [1, 2.5]}},
    ],
)
def test_common_filters_are_decided_by_the_engine_alone(filter):
    assert translated(parse_filter(filter))[1]


@pytest.mark.parametrize(
    "filter",
    [
        {"day": {"$gte": "2024-01-01" * 3}},
        {"name": {"$text": "a"}},
        {"n": {"$gt": 2**53 + 1}},
        {"n": {"$lt": math.inf}},
        {"$not": {"name": {"$itext": "a"}}},
        {"$or": [{"lang": "de"}, {"name": {"$text": "a"}}]},
    ],
)
def test_what_the_engine_cannot_decide_is_said(filter):
    assert not translated(parse_filter(filter))[1]


def test_names_that_would_be_paths_get_keys_of_their_own():
    names = ["a.b", "a[0]", "a_b", "-a", "", "a" * 101, "\ud83d\ude00", "😀"]
    keys = [field_key(name) for name in names]
    assert len(set(keys)) == len(keys)
    assert all(key.replace("-", "").replace("_", "").isalnum() for key in keys)
