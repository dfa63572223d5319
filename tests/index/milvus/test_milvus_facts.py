"""Filters as digests: expressions mean what the filter means, and hold nothing a user wrote."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m3_retrievers.index import LocalIndex, MilvusIndex
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.index.milvus.facts import facts_of, orders_of, sortable, translate
from m3_retrievers.types.hits import Record
from m3_retrievers.types.representations import Representations

HOSTILE = [*"\"'\\%_|", '") or (place > 0) or ("', "a\nb", "\ud83d", "日本", "like"]
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.5, 2**53, 2**53 + 1, float(2**53), -0.0, 5e-324, 1.7e308]),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), NUMBERS, st.sampled_from([*HOSTILE, "", "a", "b", "ab"])
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.just({"a": [1, None]}))
FIELDS = st.sampled_from(["a", 'b"c', "лист"])
METADATA = st.dictionaries(FIELDS, VALUES, max_size=3)
OPERATORS = st.one_of(
    VALUES.filter(lambda value: not isinstance(value, dict)),
    st.builds(lambda name, value: {name: value}, st.sampled_from(["$eq", "$ne"]), VALUES),
    st.builds(
        lambda name, value: {name: value},
        st.sampled_from(["$gt", "$gte", "$lt", "$lte"]),
        st.one_of(NUMBERS, st.booleans(), st.sampled_from([*HOSTILE, "a", "b"])),
    ),
    st.builds(
        lambda name, value: {name: value},
        st.sampled_from(["$in", "$nin"]),
        st.lists(VALUES, max_size=3),
    ),
    st.builds(
        lambda name, value: {name: value}, st.sampled_from(["$exists", "$empty"]), st.booleans()
    ),
    st.builds(lambda value: {"$text": value}, st.sampled_from(["a", '"', "%"])),
)
CLAUSES = st.dictionaries(FIELDS, OPERATORS, max_size=2)
FILTERS = st.recursive(
    CLAUSES,
    lambda parts: st.one_of(
        st.builds(lambda part: {"$not": part}, parts),
        st.builds(
            lambda name, some: {name: some},
            st.sampled_from(["$and", "$or"]),
            st.lists(parts, min_size=1, max_size=3),
        ),
    ),
    max_leaves=6,
)


def admitted(expression: str, metadata: dict) -> bool:
    """Evaluate an expression of Milvus, as naively as it is written, in Python."""
    stated, orders = facts_of(metadata), orders_of(metadata)
    code = re.sub(r'facts like "%(\|[0-9a-f]+\|)%"', r'("\1" in stated)', expression)
    code = re.sub(r'orders\["(\w+)"\]', r'orders.get("\1", "")', code)
    return bool(eval(code, {"stated": stated, "orders": orders, "place": 1}))


@pytest.mark.slow
@given(METADATA, FILTERS)
@settings(max_examples=300)
def test_an_expression_admits_what_the_filter_admits(metadata, filter):
    translated = translate(filter)
    wanted = compile_filter(filter)(metadata)
    found = admitted(translated.expression, metadata)
    assert found == wanted if translated.exact else found or not wanted


@given(METADATA, FILTERS)
@settings(max_examples=200)
def test_nothing_that_a_user_wrote_stands_in_an_expression(metadata, filter):
    rest = re.sub(r'facts like "%\|[0-9a-f]{24}\|%"', "", translate(filter).expression)
    rest = re.sub(r'orders\["(low|high)[0-9a-f]{24}"\] (>|>=|<|<=) "[-0-9a-f~]*"', "", rest)
    assert re.fullmatch(r"(place (>=|<) 0|and|or|not|[() ])*", rest), rest
    assert re.fullmatch(r"(\|[0-9a-f]{24})*\|", facts_of(metadata))


@given(st.lists(NUMBERS, min_size=2, max_size=2))
def test_numbers_sort_as_their_texts(pair):
    one, other = pair
    texts = sortable(one), sortable(other)
    assert (texts[0] < texts[1], texts[0] == texts[1]) == (one < other, one == other)


def test_infinities_are_bounds_of_all_numbers():
    numbers = [float("-inf"), -(10**4000), -1.7e308, 0, 1.7e308, 10**4000, float("inf")]
    assert sorted(numbers, key=sortable) == numbers


def test_a_long_string_is_ordered_by_what_a_bound_can_tell():
    long = "a" * 70
    for bound in ("a" * 10, "a" * 64, "a" * 63 + "b", "b"):
        filter = {"t": {"$gt": bound}}
        assert translate(filter).exact
        assert admitted(translate(filter).expression, {"t": long}) == (long > bound)
    assert not translate({"t": {"$gt": "a" * 65}}).exact


def test_a_number_of_another_library_is_compared_here():
    assert not translate({"a": np.float32(0.1)}).exact
    assert not translate({"a": {"$gt": np.int64(3)}}).exact


def test_many_options_are_compared_here():
    assert translate({"a": {"$in": list(range(200))}}).exact
    assert not translate({"a": {"$in": list(range(201))}}).exact


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MilvusIndex, LocalIndex]]:
    """The same records in Milvus Lite and here, every kind of hostile value among them."""
    values = [*HOSTILE, 1, 1.0, True, None, [], [1, "a"], 2**53 + 1, -0.5, "2024-05-01", {"a": 1}]
    records = [
        Record(f"d{at:02}", "", {"a": value, 'b"c': at, **({"лист": 1} if at % 2 else {})})
        for at, value in enumerate(values)
    ]
    dense = Representations(dense=np.eye(len(records), dtype=np.float32))
    path: Path = tmp_path_factory.mktemp("facts") / "m.db"
    milvus, local = MilvusIndex(str(path), modes=["dense"]), LocalIndex(modes=["dense"])
    for index in (milvus, local):
        index.add(records, dense)
    yield milvus, local
    milvus.close()


@pytest.mark.slow
@given(FILTERS)
@settings(max_examples=40)
def test_milvus_lite_admits_the_same_records(pair, filter):
    milvus, local = pair
    assert milvus.where(filter) == local.where(filter)
