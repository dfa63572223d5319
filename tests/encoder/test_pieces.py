import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers.checks import check_texts
from m3_retrievers.encoder.pieces import Frame, Tokens, cut
from m3_retrievers.errors import InputError, TextTooLongError, TruncationWarning

FRAME = Frame((0,), (2,))


def tokens(*lengths: int) -> list[Tokens]:
    return [Tokens(np.arange(10, 10 + length)) for length in lengths]


def test_a_text_is_framed_by_cls_and_sep():
    [piece] = cut(tokens(3), FRAME, max_length=8, truncation="warn")
    assert piece.ids.tolist() == [0, 10, 11, 12, 2]
    assert piece.cls_places.tolist() == [0]


def test_a_long_text_is_cut_with_one_warning_that_counts():
    with pytest.warns(TruncationWarning, match=r"2 of 3 texts were cut to 4 tokens.*has 9") as said:
        pieces = cut(tokens(9, 4, 5), FRAME, max_length=6, truncation="warn")
    assert len(said) == 1
    assert [piece.ids.tolist() for piece in pieces] == [
        [0, 10, 11, 12, 13, 2],
        [0, 10, 11, 12, 13, 2],
        [0, 10, 11, 12, 13, 2],
    ]


def test_a_text_that_just_fits_is_not_cut():
    assert len(cut(tokens(4), FRAME, max_length=6, truncation="error")) == 1


def test_a_long_text_can_be_refused():
    with pytest.raises(TextTooLongError, match="at most 4 tokens, got 5 at position 1"):
        cut(tokens(1, 5), FRAME, max_length=6, truncation="error")


@given(st.integers(0, 60), st.integers(3, 20))
def test_windows_hold_every_token_once_and_in_order(length, max_length):
    pieces = cut(tokens(length), FRAME, max_length=max_length, truncation="windows")
    assert all(len(piece.ids) <= max_length for piece in pieces)
    assert [i for piece in pieces for i in piece.ids[1:-1]] == list(range(10, 10 + length))


def test_mcls_puts_a_cls_before_every_segment_and_one_sep_at_the_end():
    [piece] = cut(tokens(5), FRAME, max_length=99, truncation="warn", mcls_every=2)
    assert piece.ids.tolist() == [0, 10, 11, 0, 12, 13, 0, 14, 2]
    assert piece.cls_places.tolist() == [0, 3, 6]


def test_mcls_leaves_a_short_document_as_it_is():
    [piece] = cut(tokens(2), FRAME, max_length=99, truncation="warn", mcls_every=2)
    assert piece.ids.tolist() == [0, 10, 11, 2]


@given(st.integers(0, 200), st.integers(1, 30), st.integers(3, 120))
def test_mcls_fills_the_length_limit_and_never_passes_it(length, every, max_length):
    pieces = cut(
        tokens(length), FRAME, max_length=max_length, truncation="windows", mcls_every=every
    )
    assert all(len(piece.ids) <= max_length for piece in pieces)
    # a whole window leaves room for no further token: that one might need a CLS of its own
    for piece in pieces[:-1]:
        assert len(piece.ids) >= max_length - 1


@pytest.mark.parametrize("bad", [None, 3, b"bytes", ["list"]])
def test_what_is_no_text_is_named_with_its_position(bad):
    with pytest.raises(InputError, match="at position 1"):
        check_texts(["fine", bad])


def test_one_string_is_no_list_of_texts():
    with pytest.raises(InputError, match="got one string"):
        check_texts("hello")
