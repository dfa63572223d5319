"""Posting lists added up: every way to do it gives the same bits."""

import numpy as np
import pytest

from m3_retrievers.index.stores import postings


def lists(dtype):
    rng = np.random.default_rng(0)
    held = [np.sort(rng.choice(50, size, replace=False)) for size in (20, 0, 50, 3)]
    ends = np.cumsum([len(rows) for rows in held])
    rows = np.concatenate(held).astype(np.int32)
    weights = rng.random(len(rows)).astype(dtype)
    return rows, weights, ends - [len(rows) for rows in held], ends, rng.random(4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_way_gives_the_bits_of_a_plain_loop(dtype, monkeypatch):
    rows, weights, firsts, lasts, factors = lists(dtype)
    expected = np.zeros(50)
    for first, last, factor in zip(firsts, lasts, factors, strict=True):
        for row, weight in zip(rows[first:last], weights[first:last], strict=True):
            expected[row] += float(weight) * factor
    ways = [postings.plain, postings.add_postings, postings.compiled()]
    for add in filter(None, ways):
        sums = np.zeros(50)
        add(sums, rows, weights, firsts, lasts, factors)
        np.testing.assert_array_equal(sums, expected)
    monkeypatch.setattr(postings, "_csc_matvec", None)
    sums = np.zeros(50)
    postings.plain(sums, rows, weights, firsts, lasts, factors)
    np.testing.assert_array_equal(sums, expected)
