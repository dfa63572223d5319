"""MetadataFilters in the core's language."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from m3_retrievers.errors import FilterError
from m3_retrievers.frameworks.inputs import all_of
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.llama_index.filters import to_filter

DOCUMENTS: list[dict[str, Any]] = [
    {"year": 2020, "lang": "en", "tags": ["rag", "search"]},
    {"year": 2024, "lang": "de", "tags": ["rag"]},
    {"year": 2024, "lang": "english", "tags": []},
    {"lang": "fr"},
]


def one(key: str, operator: str, value: Any) -> MetadataFilter:
    return MetadataFilter(key=key, operator=FilterOperator(operator), value=value)


def admitted(*parts: Any, condition: str = "and") -> list[int]:
    filters = MetadataFilters(filters=list(parts), condition=FilterCondition(condition))
    passes = compile_filter(to_filter(filters))
    return [n for n, metadata in enumerate(DOCUMENTS) if passes(metadata)]


@pytest.mark.parametrize(
    ("key", "operator", "value", "expected"),
    [
        ("year", "==", 2024, [1, 2]),
        ("year", "!=", 2024, [0, 3]),
        ("year", ">", 2020, [1, 2]),
        ("year", ">=", 2020, [0, 1, 2]),
        ("year", "<", 2024, [0]),
        ("year", "<=", 2024, [0, 1, 2]),
        ("lang", "in", ["en", "fr"], [0, 3]),
        ("lang", "nin", ["en", "fr"], [1, 2]),
        ("year", "nin", [2024], [0, 3]),
        ("tags", "any", ["search", "other"], [0]),
        ("tags", "all", ["rag", "search"], [0]),
        ("tags", "all", ["rag"], [0, 1]),
        ("tags", "contains", "rag", [0, 1]),
        ("tags", "contains", "ra", []),
    ],
)
def test_operators(key: str, operator: str, value: Any, expected: list[int]) -> None:
    assert admitted(one(key, operator, value)) == expected


@pytest.mark.parametrize(
    ("key", "operator", "value", "expected"),
    [
        ("lang", "text_match", "en", [0, 2]),
        ("lang", "text_match_insensitive", "GL", [2]),
        ("tags", "is_empty", None, [2, 3]),
        ("year", "is_empty", None, [3]),
    ],
)
def test_operators_to_come(key: str, operator: str, value: Any, expected: list[int]) -> None:
    assert admitted(one(key, operator, value)) == expected


def test_conditions_and_nesting() -> None:
    recent, german = one("year", ">=", 2024), one("lang", "==", "de")
    assert admitted(recent, german) == [1]
    assert admitted(recent, german, condition="or") == [1, 2]
    assert admitted(recent, german, condition="not") == [0, 3]
    inner = MetadataFilters(filters=[german, one("lang", "==", "fr")], condition=FilterCondition.OR)
    assert admitted(one("year", "!=", 2020), inner) == [1, 3]
    assert admitted(MetadataFilters(filters=[inner], condition=FilterCondition.NOT)) == [0, 2]
    assert to_filter(MetadataFilters(filters=[german], condition=None)) == {
        "$and": [{"lang": {"$eq": "de"}}]
    }


def test_no_filters_admit_everything() -> None:
    assert to_filter(None) is None
    assert admitted() == [0, 1, 2, 3]
    assert admitted(MetadataFilters(filters=[]), one("lang", "==", "de")) == [1]
    assert all_of([None, {}, None]) is None
    assert all_of([{"a": 1}, None]) == {"a": 1}
    assert all_of([{"a": 1}, {"b": 2}]) == {"$and": [{"a": 1}, {"b": 2}]}


def test_the_cores_language_passes_through() -> None:
    assert to_filter({"year": {"$exists": True}}) == {"year": {"$exists": True}}


@pytest.mark.parametrize(
    ("key", "operator", "value"),
    [
        ("year", ">", [1]),
        ("lang", "in", "en"),
        ("tags", "all", "rag"),
        ("tags", "all", []),
        ("$year", "==", 1),
    ],
)
def test_operands_of_the_wrong_shape_are_refused(key: str, operator: str, value: Any) -> None:
    with pytest.raises(FilterError):
        admitted(one(key, operator, value))


def test_what_is_no_filter_is_refused() -> None:
    with pytest.raises(FilterError, match="MetadataFilters"):
        to_filter([one("year", "==", 1)])  # type: ignore[arg-type]


_OPERATORS = st.sampled_from(["==", "!=", ">", ">=", "<", "<="])
_LISTS = st.sampled_from(["in", "nin"])
_VALUES = st.integers(0, 3)
_KEYS = st.sampled_from(["a", "b"])
_FILTERS = st.one_of(
    st.builds(one, _KEYS, _OPERATORS, _VALUES),
    st.builds(one, _KEYS, _LISTS, st.lists(_VALUES, max_size=3)),
)


@given(
    parts=st.lists(_FILTERS, min_size=1, max_size=3),
    condition=st.sampled_from(["and", "or", "not"]),
    metadata=st.dictionaries(_KEYS, _VALUES),
)
def test_flat_filters_mean_what_llama_index_itself_takes_them_for(
    parts: list[MetadataFilter], condition: str, metadata: dict[str, int]
) -> None:
    filters = MetadataFilters(filters=parts, condition=FilterCondition(condition))
    theirs = build_metadata_filter_fn(lambda _: metadata, filters)("any id")
    assert compile_filter(to_filter(filters))(metadata) == theirs
