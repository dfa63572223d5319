"""A filter's SQL admits exactly what its definition does, on a real server."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from m3_retrievers.index.filters import compile_filter
from m3_retrievers.index.pgvector.filters import where
from m3_retrievers.index.pgvector.values import comparable, folded

pytestmark = pytest.mark.slow

# Values that an engine's own types confuse, small enough that two of them are often the same
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, 1.0, -1.5, 2**53, 2**53 + 1, 2.0**53, 1e23, 10**23, 0.1, 1e-7, 1e300]),
    st.sampled_from(["", "a", "A", "ab", "1", "true", "null", "ß", "SS", "ss", "İ", "100%_\\'\""]),
    st.text(st.sampled_from("aAbß\x00\x02\x05\ud7ff\ud800\ue000\U00010000"), max_size=3),
)
VALUES = st.recursive(
    SCALARS,
    lambda parts: st.one_of(
        st.lists(parts, max_size=3), st.dictionaries(st.sampled_from("ab\x00"), parts, max_size=2)
    ),
    max_leaves=4,
)
NAMES = st.sampled_from(["f", "g", "", "a.b", "f\x00", "f'\"%s", "\ud800"])
METADATA = st.dictionaries(NAMES, VALUES, max_size=3)
BOUNDS = st.one_of(
    SCALARS.filter(lambda value: value is not None), st.sampled_from([float("inf"), -float("inf")])
)
PARTS = st.sampled_from(["", "a", "A", "ss", "SS", "ß", "i̇", "\x00", "\x02", "\ud800", "%", "\\"])
TESTS = st.one_of(
    VALUES.filter(lambda value: not isinstance(value, dict)),
    st.fixed_dictionaries({}, optional={"$eq": VALUES, "$ne": VALUES}).filter(bool),
    st.builds(lambda name, options: {name: options}, st.sampled_from(["$in", "$nin"]),
              st.lists(VALUES, max_size=3)),
    st.builds(lambda name, bound: {name: bound}, st.sampled_from(["$gt", "$gte", "$lt", "$lte"]),
              BOUNDS),
    st.builds(lambda name, yes: {name: yes}, st.sampled_from(["$exists", "$empty"]), st.booleans()),
    st.builds(lambda name, part: {name: part}, st.sampled_from(["$text", "$itext"]), PARTS),
)  # fmt: skip
FILTERS = st.recursive(
    st.dictionaries(NAMES, st.one_of(TESTS, TESTS.map(lambda t: {"$not": t}
                    if isinstance(t, dict) else t)), max_size=2),
    lambda parts: st.one_of(
        st.builds(lambda name, some: {name: some}, st.sampled_from(["$and", "$or"]),
                  st.lists(parts, min_size=1, max_size=3)),
        parts.map(lambda part: {"$not": part}),
    ),
    max_leaves=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def admitted(dsn):
    """Return a function that asks the server which of some documents a filter admits."""
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:

        def admitted(filter, documents):
            params = {}
            condition = where(filter, params)
            rows = [{"m": comparable(d), "f": comparable(folded(d))} for d in documents]
            # JSON's null is a value, and a column without one is not
            query = sql.SQL(
                "SELECT array_agg({} ORDER BY at) FROM (SELECT at, row -> 'm' AS metadata, "
                "nullif(row -> 'f', 'null') AS folded FROM jsonb_array_elements({}::jsonb) "
                "WITH ORDINALITY AS rows (row, at)) AS d"
            ).format(condition, sql.Placeholder("rows"))
            params["rows"] = json.dumps(rows)
            return connection.execute(query, params).fetchone()[0]

        yield admitted


@settings(max_examples=60)
@given(FILTERS, st.lists(METADATA, min_size=4, max_size=8))
@example({"f": True}, [{"f": 1}, {"f": True}, {"f": [1]}, {"f": [True]}])
@example({"f": {"$lte": 10**23}}, [{"f": 1e23}, {"f": 10**23}, {"f": [10**23]}, {}])
@example({"f": {"$gt": ""}}, [{"f": "\x00"}, {"f": "\ud800"}, {"f": ""}, {"f": 1}])
@example({"f": {"$itext": "SS"}}, [{"f": "ß"}, {"f": ["x", "ẞ"]}, {"f": "s"}, {"f": None}])
@example({"f": {"$eq": [1]}}, [{"f": [1.0]}, {"f": [[1]]}, {"f": [True]}, {"f": 1}])
@example({"f": {"$eq": {"a": 1}}}, [{"f": {"a": 1, "b": 2}}, {"f": [{"a": 1}]}, {"f": {"a": 1}}])
@example({"f": None}, [{"f": None}, {}, {"f": [None]}, {"f": "null"}])
@example({"\ud800": 1}, [{"\ud800": 1}, {"\ud800": [1]}, {"\ud800": 2}, {}])
@example({"f": {"$ne": 1}}, [{}, {"f": None}, {"f": 1}, {"f": [2, 1]}])
def test_a_filter_admits_in_sql_what_its_definition_does(admitted, filter, documents):
    passes = compile_filter(filter)
    assert admitted(filter, documents) == [passes(document) for document in documents]


@pytest.mark.parametrize(
    "value",
    ["'; DROP TABLE documents; --", "%s", "%(f0)s", "{}", "a $1", "\\'", 'a"b', "a' OR 'a'='a"],
)
def test_nothing_in_a_filter_is_read_as_sql(admitted, value):
    documents = [{value: value}, {value: "other"}, {"other": value}, {}]
    assert admitted({value: value}, documents) == [True, False, False, False]
    assert admitted({value: {"$text": value}}, documents) == [True, False, False, False]
    assert admitted({value: {"$gte": value, "$lte": value}}, documents) == [
        True, False, False, False,
    ]  # fmt: skip


def test_a_filter_of_a_hundred_levels_is_answered(admitted):
    filter = {"f": 1}
    for _ in range(98):
        filter = {"$not": filter}
    assert admitted(filter, [{"f": 1}, {"f": 2}]) == [True, False]


def test_numpy_numbers_are_numbers(admitted):
    import numpy as np

    documents = [{"f": 2}, {"f": 2.5}, {"f": 3}]
    assert admitted({"f": np.int64(2)}, documents) == [True, False, False]
    assert admitted({"f": {"$gte": np.float32(2.5)}}, documents) == [False, True, True]
