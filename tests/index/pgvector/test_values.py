"""Strings and numbers keep their equality, their order and their parts on the way to SQL."""

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from m3_retrievers.index.pgvector.values import (
    comparable,
    folded,
    json_read,
    json_written,
    number,
    read,
    written,
)

# the characters that are written otherwise, their neighbours, and what they are written with
EDGES = "\x00\x01\x02\x05\x06\t a\ud7fe\ud7ff\ud800\udbff\udc00\udfff\ue000\uffff\U00010000"
texts = st.text(st.one_of(st.sampled_from(EDGES), st.characters(exclude_categories=())))


def as_postgres_orders(text: str) -> bytes:
    """COLLATE "C" compares the bytes of UTF-8."""
    return text.encode("utf-8")


@settings(max_examples=50)
@given(texts)
def test_every_string_comes_back_and_fits(text):
    assert read(written(text)) == text
    assert "\x00" not in written(text)
    written(text).encode("utf-8")


@given(texts, texts)
@example("\x00", "")
@example("\ud7ff", "\ud800")
@example("\udfff", "\ue000")
@example("a\x01", "a\x00\x05")
def test_strings_keep_their_order(one, other):
    left, right = (as_postgres_orders(written(text)) for text in (one, other))
    assert (one < other) == (left < right)
    assert (one == other) == (left == right)


@given(texts, texts)
@example("\x02", "\x01")
@example("\x03", "\x00")
@example("\x02", "\ud800")
@example("\x02\x02", "\ud7ff")
def test_a_part_is_found_where_it_is_and_nowhere_else(part, text):
    assert (part in text) == (written(part) in written(text))


@given(texts, texts, texts)
def test_a_part_is_found_in_the_middle(before, part, after):
    assert written(part) in written(before + part + after)


@pytest.mark.parametrize(
    "text", ["", "plain", "日本語 🦊", "tab\tline\n\r", "it's 100%_\\\"", "\x7f\x1f"]
)
def test_what_people_write_is_kept_as_it_is(text):
    assert written(text) == text


reals = st.one_of(
    st.integers(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([2**53, 2**53 + 1, 2.0**53, 1e23, 10**23, 0.1, 5e-324, -0.0, 1e300]),
)


@given(reals, reals)
@example(1e23, 10**23)
@example(float(2**53), 2**53 + 1)
@example(1, 1.0)
def test_numbers_keep_their_order_as_decimals(one, other):
    from fractions import Fraction

    left, right = (Fraction(str(number(value))) for value in (one, other))
    assert (one < other) == (left < right)
    assert (one == other) == (left == right)


@settings(max_examples=50)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts),
        lambda parts: st.lists(parts) | st.dictionaries(texts, parts),
        max_leaves=8,
    )
)
def test_json_comes_back_to_the_type(value):
    assume(value == value)
    assert repr(json_read(json_written(value))) == repr(value)


def test_only_what_folding_changes_is_kept_folded():
    about = {"a": "Ä", "b": "b", "c": ["ß", 1, None, ["X"]], "d": ["x"], "e": {"f": "G"}, "g": 1}
    assert folded(about) == {"a": "ä", "c": ["ss"]}
    assert folded({"lower": "case"}) is None


def test_a_key_is_written_like_a_string():
    assert comparable({"a\x00": {"\ud800": 1}}) == {
        written("a\x00"): {written("\ud800"): 1},
    }
