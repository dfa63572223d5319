"""What an index keeps of a record, and what it refuses before it keeps anything."""

import copy
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers.errors import InputError
from m3_retrievers.index.records import stored_record
from m3_retrievers.types.hits import Record

HUGE = 10**5000  # Python writes no integer of so many digits, pytest's names among others


def kind(value):
    return type(value).__name__


def nested(depth: int, *, of=lambda inner: {"a": inner}):
    """A value of so many levels."""
    value = 1
    for _ in range(depth):
        value = of(value)
    return value


@pytest.mark.parametrize("of", [lambda inner: {"a": inner}, lambda inner: [inner], lambda i: (i,)])
def test_metadata_is_nested_to_100_levels_and_no_deeper(of):
    kept = stored_record(Record("d", "text", {"x": nested(99, of=of)}))
    copy.deepcopy(kept.metadata)
    for depth in (100, 900, 100_000):
        with pytest.raises(
            InputError, match=r"(?s)under 'x' of document 'd7'.*more than 100 level"
        ):
            stored_record(Record("d7", "text", {"year": 1, "x": nested(depth, of=of)}))


def test_metadata_that_holds_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(InputError, match=r"'d7'.*more than 100 levels"):
        stored_record(Record("d7", "text", {"x": loop}))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (HUGE, "an int that is too large"),
        ([HUGE], "too large"),
        (math.nan, "got nan .*JSON"),
        ([{"a": math.inf}], "inf.*JSON"),
        ({"a", "b"}, "got {.*set"),
        ({"a": {1: 2}}, "the key 1, which is no string"),
        ({"a": {None: 2}}, "the key None, which is no string"),
        (b"bytes", "got b'bytes'"),
    ],
    ids=range(8),
)
def test_what_json_does_not_hold_is_refused_with_its_key_and_document(value, message):
    with pytest.raises(InputError, match=rf"(?s){message}") as raised:
        stored_record(Record("d7", "text", {"key": value}))
    assert "under 'key' of document 'd7'" in str(raised.value)


@pytest.mark.parametrize("metadata", [None, [("a", 1)], "year", 5, HUGE], ids=kind)
def test_metadata_that_is_no_mapping_is_refused(metadata):
    with pytest.raises(InputError, match=r"metadata expects a mapping .*got .*'d7'"):
        stored_record(Record("d7", "text", metadata))


@pytest.mark.parametrize("key", [3, None, True, 10**5000, ("a",)], ids=kind)
def test_keys_are_strings(key):
    with pytest.raises(InputError, match=r"string keys, got .*'d7'"):
        stored_record(Record("d7", "text", {key: 1}))


@pytest.mark.parametrize(
    "parts", [(3, "text"), ("d", None), (HUGE, "text"), ("d", b"text")], ids=range(4)
)
def test_ids_and_texts_are_strings(parts):
    with pytest.raises(InputError, match="string id and text"):
        stored_record(Record(*parts))


def test_what_is_kept_is_a_copy_as_json_gives_it_back():
    about = {"tags": ("a", "b"), "none": None, "pair": {"x": [1, 2.5, True]}, "half": "\ud83d"}
    record = Record("\ud800", "a\x00b\udfff", about)
    kept = stored_record(record)
    assert kept == Record("\ud800", "a\x00b\udfff", {**about, "tags": ["a", "b"]})
    about["pair"]["x"].append(3)
    assert kept.metadata["pair"]["x"] == [1, 2.5, True]
    assert stored_record(Record("d", "")).metadata == {}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=2),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner)
            | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_whatever_is_kept_is_json_that_stays_as_it_is(value):
    try:
        kept = stored_record(Record("d", "", {"x": value}))
    except InputError:
        return
    assert json.loads(json.dumps(kept.metadata, allow_nan=False)) == kept.metadata
    assert stored_record(kept) == kept
