import numpy as np
import pytest

from m3_retrievers.errors import InputError
from m3_retrievers.index.stores.multivector import MultiVectorIndex
from m3_retrievers.scoring.late_interaction import maxsim
from m3_retrievers.types.packed import MultiVectors


def pack(count: int, *, seed: int = 0, width: int = 16) -> MultiVectors:
    rng = np.random.default_rng(seed)
    rows = [rng.standard_normal((int(rng.integers(1, 9)), width)) for _ in range(count)]
    rows = [(row / np.linalg.norm(row, axis=1, keepdims=True)).astype(np.float32) for row in rows]
    return MultiVectors.from_rows(rows)


def test_scores_equal_maxsim_however_the_rows_came_and_are_asked_for():
    documents, query = pack(40), pack(1, seed=1)
    index = MultiVectorIndex(dtype="float32")
    for first in (0, 1, 13, 27):
        last = {0: 1, 1: 13, 13: 27, 27: 40}[first]
        index.append(documents.take(np.arange(first, last)))
    expected = maxsim(query, documents)[0]
    for rows in (np.arange(40), np.arange(39, -1, -1), np.array([5, 5, 39, 0]), np.array([], int)):
        np.testing.assert_allclose(index.score(query, rows), expected[rows], atol=1e-6)
        assert index.take(rows).lengths.tolist() == documents.lengths[rows].tolist()


def test_half_precision_moves_a_score_by_less_than_a_thousandth():
    documents, query = pack(200, width=64), pack(1, seed=1, width=64)
    index = MultiVectorIndex(documents)
    assert index.take(np.arange(200)).vectors.dtype == np.float16
    expected = maxsim(query, documents)[0]
    assert np.abs(index.score(query, np.arange(200)) - expected).max() < 1e-3


def test_search_ranks_what_is_admitted():
    documents, query = pack(30), pack(1, seed=1)
    index = MultiVectorIndex(documents, dtype="float32")
    admitted = np.arange(30) % 3 == 0
    rows, scores = index.search(query, k=4, admitted=admitted)
    expected = maxsim(query, documents)[0]
    best = [row for row in np.argsort(-expected, kind="stable") if admitted[row]][:4]
    assert rows.tolist() == best
    np.testing.assert_allclose(scores, expected[best], atol=1e-6)


def test_another_width_is_refused():
    index = MultiVectorIndex(pack(2))
    with pytest.raises(InputError, match="width 16, got 8"):
        index.append(pack(1, width=8))
    with pytest.raises(InputError, match="width 16, got 8"):
        index.score(pack(1, width=8), np.array([0]))
