"""Rows in chunks: the same as one matrix, and what was there does not move."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers.index.stores import chunks
from m3_retrievers.index.stores.chunks import Chunks


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=8), st.data())
def test_they_hold_what_one_matrix_would(steps, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "_BYTES", 5 * 2 * 4)  # five rows
        whole = np.arange(200, dtype=np.float32).reshape(-1, 2)
        rows, done = Chunks(whole[:3]), 3
        for count, owned in steps:
            (rows.adopt if owned else rows.append)(whole[done : done + count])
            done += count
    assert len(rows) == done
    np.testing.assert_array_equal(np.concatenate(rows.parts), whole[:done])
    wanted = np.array(data.draw(st.lists(st.integers(0, done - 1))), np.int64)
    np.testing.assert_array_equal(rows.take(wanted), whole[wanted])
    pieces = rows.pieces(wanted, wanted + 1)
    np.testing.assert_array_equal(np.asarray(pieces), whole[wanted])
    assert pieces.nbytes == np.asarray(pieces).nbytes


def test_what_is_there_does_not_move():
    rows = Chunks(np.zeros((0, 4), np.float32))
    rows.append(np.ones((3, 4), np.float32))
    (first,) = rows.between(0, 3)
    for _ in range(12):
        rows.append(np.ones((1 << 17, 4), np.float32))
    assert np.shares_memory(first, next(rows.between(0, 3)))


def test_what_it_started_with_is_not_changed_and_a_copy_is_no_larger_than_its_rows():
    given_rows = np.zeros((2, 3), np.float32)
    rows = Chunks(given_rows)
    rows.append(np.ones((1, 3), np.float32))
    assert not given_rows.any()
    again = copy.deepcopy(rows)
    again.append(np.full((1, 3), 2, np.float32))
    assert (len(rows), len(again)) == (3, 4)
    assert [len(part) for part in rows.__getstate__()["_parts"]] == [2, 1]
