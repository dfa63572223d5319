"""InvertedIndex against a dense matrix: growth, masks, ties, signs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse as sp

from m3_retrievers.errors import InputError
from m3_retrievers.index.stores.inverted import InvertedIndex

# Halves add up exactly, so ties are real ties and equality can be asked for.
halves = st.integers(-4, 6).map(lambda number: number / 2)
positives = st.integers(1, 6).map(lambda number: number / 2)


@st.composite
def sparse_rows(draw, *, weights=halves, max_rows=5, max_width=9):
    """Rows as {column: weight}, explicit zeros included, with a width of their own."""
    width = draw(st.integers(1, max_width))
    row = st.dictionaries(st.integers(0, width - 1), weights, max_size=5)
    return draw(st.lists(row, max_size=max_rows)), width


def csr(rows: list[dict[int, float]], width: int, dtype=np.float64) -> sp.csr_array:
    indptr = np.cumsum([0, *map(len, rows)])
    columns = [column for row in rows for column in sorted(row)]
    data = [row[column] for row in rows for column in sorted(row)]
    return sp.csr_array((np.array(data, dtype), columns, indptr), shape=(len(rows), width))


def oracle(rows, query):
    """Score and whether a term is shared, row by row; a stored 0 is no weight, so no term."""
    rows = [{column: weight for column, weight in row.items() if weight} for row in rows]
    query = {column: weight for column, weight in query.items() if weight}
    scores = np.array([sum(row[c] * query[c] for c in row if c in query) for row in rows], float)
    return scores, np.array([any(column in query for column in row) for row in rows], bool)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [halves, positives], ids=["signed", "positive"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=100)
@given(data=st.data())
def test_every_answer_equals_the_dense_oracle(dtype, weights, data):
    index, rows = InvertedIndex(), []
    for part, width in data.draw(st.lists(sparse_rows(weights=weights), max_size=6)):
        index.append(csr(part, width, dtype))
        rows += part
    admitted = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    admitted = data.draw(st.none() | st.just(admitted.astype(bool)))
    (query, *_), width = data.draw(
        sparse_rows(weights=weights, max_width=12).filter(lambda drawn: drawn[0])
    )
    k = data.draw(st.none() | st.integers(1, 8))

    scores, shared = oracle(rows, query)
    wanted = shared & (True if admitted is None else admitted)
    ranked = [row for row in np.argsort(-scores, kind="stable") if wanted[row]][:k]
    found, found_scores = index.search(csr([query], width), k=k, admitted=admitted)
    assert found.tolist() == ranked
    assert found_scores.tolist() == scores[ranked].tolist()
    assert index.scores(csr([query], width)).tolist() == scores.tolist()
    assert len(index) == len(rows)
    dense = np.zeros(index.matrix.shape)
    for place, row in enumerate(rows):
        dense[place, list(row)] = list(row.values())
    assert np.array_equal(index.matrix.toarray(), dense)


def zipf_matrix(n: int, v: int, dtype: type) -> sp.csr_array:
    rng = np.random.default_rng(n)
    chance = 1 / np.arange(1, v + 1)
    columns = rng.choice(v, size=n * 12, p=chance / chance.sum())
    weights = rng.random(n * 12).astype(dtype)
    matrix = sp.csr_array((weights, (np.repeat(np.arange(n), 12), columns)), shape=(n, v))
    matrix.sum_duplicates()
    return matrix


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_given_rows_score_the_very_same_floats_as_a_scan(dtype):
    matrix = zipf_matrix(3000, 500, dtype)
    index = InvertedIndex()
    for first in range(0, 3000, 700):
        index.append(matrix[first : first + 700])
    query = zipf_matrix(1, 500, dtype)
    everything = index.scores(query)
    few = np.array([2999, 0, 1400, 5, 1400, 77])  # any order, repeats
    assert np.array_equal(index.score(query, few), everything[few])
    many = np.arange(3000)[::-1]
    assert np.array_equal(index.score(query, many), everything[many])
    assert index.score(query, np.empty(0, np.int64)).tolist() == []
    assert everything[few].max() > 0
    expected = (matrix.astype(np.float64) @ query.astype(np.float64).T).toarray().ravel()
    assert everything == pytest.approx(expected, abs=1e-12)


def test_appends_of_one_row_keep_the_segments_few():
    matrix = zipf_matrix(600, 50, np.float64)
    one_by_one = InvertedIndex()
    for row in range(600):
        one_by_one.append(matrix[[row]])
    assert len(one_by_one._segments) <= np.log2(600 * 13) + 1
    at_once = InvertedIndex.from_matrix(matrix)
    query = zipf_matrix(1, 50, np.float64)
    for theirs, ours in zip(
        at_once.search(query, k=50), one_by_one.search(query, k=50), strict=True
    ):
        assert np.array_equal(theirs, ours)
    assert np.array_equal(one_by_one.matrix.toarray(), matrix.toarray())


@given(rows=st.lists(st.integers(0, 12)))
def test_rows_are_given_back_in_the_order_asked_for(rows):
    parts = [csr([{0: 1.0, 2: 2.0}] * 9, 3), csr([{}, {4: 3.0}], 5), csr([{1: 4.0}], 2)]
    index = InvertedIndex()
    for part in [*parts, csr([{3: 5.0}], 4)]:
        index.append(part)
    assert len(index._segments) > 1
    taken = index.take(np.array(rows, np.int64))
    assert taken.shape == (len(rows), 5)
    assert np.array_equal(taken.toarray(), index.matrix.toarray()[rows])


def test_ties_at_the_cut_go_to_the_rows_inserted_first():
    index = InvertedIndex()
    for weight in (1.0, 2.0, 1.0, 1.0, 2.0, 1.0):
        index.append(csr([{0: weight}], 1))
    rows, scores = index.search(csr([{0: 1.0}], 1), k=4)
    assert rows.tolist() == [1, 4, 0, 2]
    assert scores.tolist() == [2.0, 2.0, 1.0, 1.0]


def test_a_shared_term_is_found_even_at_score_0_or_below():
    index = InvertedIndex.from_matrix(csr([{0: 0.0}, {1: 3.0}, {0: -2.0}, {0: 1.0, 1: -1.0}], 2))
    rows, scores = index.search(csr([{0: 1.0}], 2), k=None)
    assert rows.tolist() == [3, 2]
    assert scores.tolist() == [1.0, -2.0]
    rows, scores = index.search(csr([{0: 1.0, 1: 1.0}], 2), k=None)
    assert rows.tolist() == [1, 3, 2]
    assert scores.tolist() == [3.0, 0.0, -2.0]


def test_the_empty_index_and_the_empty_query_find_nothing():
    for index in (InvertedIndex(), InvertedIndex.from_matrix(csr([{}, {}], 3))):
        rows, scores = index.search(csr([{1: 1.0}], 3), k=5)
        assert (rows.tolist(), scores.tolist()) == ([], [])
        assert not index.scores(csr([{1: 1.0}], 3)).any()
    assert InvertedIndex().matrix.shape == (0, 0)
    filled = InvertedIndex.from_matrix(csr([{0: 1.0}], 1))
    assert filled.search(csr([{}], 1), k=5)[0].tolist() == []
    assert filled.search(sp.csr_array((1, 0)), k=5)[0].tolist() == []


def test_the_caller_s_matrix_is_not_changed():
    unsorted = sp.csr_array((np.array([1.0, 2.0, 4.0]), [2, 0, 2], [0, 3]), shape=(1, 3))
    index = InvertedIndex.from_matrix(unsorted)
    assert index.scores(csr([{2: 1.0}], 3)).tolist() == [5.0]
    assert unsorted.indices.tolist() == [2, 0, 2]
    assert unsorted.data.tolist() == [1.0, 2.0, 4.0]


def test_float32_weights_add_up_in_float64():
    rows = csr([{0: 2.0**24, 1: 1.0}], 2, np.float32)
    assert InvertedIndex.from_matrix(rows).scores(csr([{0: 1, 1: 1}], 2, np.float32)) == 2**24 + 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_number_are_refused(bad):
    index = InvertedIndex()
    with pytest.raises(InputError, match="finite"):
        index.append(csr([{0: bad}], 1))
    assert len(index) == 0
    with pytest.raises(InputError, match="finite"):
        index.search(csr([{0: bad}], 1), k=1)


def test_wrong_shapes_are_refused():
    index = InvertedIndex.from_matrix(csr([{0: 1.0}], 1))
    with pytest.raises(InputError, match=r"shape \(1, v\), got \(2, 1\)"):
        index.search(csr([{0: 1.0}, {}], 1), k=1)
    with pytest.raises(InputError, match=r"mask of shape \(1,\)"):
        index.search(csr([{0: 1.0}], 1), k=1, admitted=np.array([True, False]))
    with pytest.raises(InputError, match="k expects"):
        index.search(csr([{0: 1.0}], 1), k=0)
