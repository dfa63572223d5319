"""MaxSim over vectors kept in int8 equals MaxSim of the same vectors widened."""

import numpy as np
import pytest

from m3_retrievers.index.stores import multivector
from m3_retrievers.index.stores.compressed import compressed, expanded
from m3_retrievers.index.stores.multivector import MultiVectorIndex
from m3_retrievers.scoring import maxsim
from m3_retrievers.scoring.int8_maxsim import multiplies_int8
from m3_retrievers.types.packed import MultiVectors

pytestmark = pytest.mark.skipif(
    not multiplies_int8(64), reason="this machine multiplies int8 no faster than it widens it"
)


def units(count, *, width, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def documents(width):
    """Return texts of 0 to 30 vectors; what is kept of them has no vector and no number of 0."""
    lengths = [0, 3, 1, 0, 0, 30, 7, 12, 5, 0]
    return MultiVectors.from_rows(
        [units(length, width=width, seed=length) for length in lengths], dimension=width
    )


@pytest.mark.parametrize("width", [1, 3, 64, 384, 1_024])
@pytest.mark.parametrize("at_once", [1, 5_000, multivector._BYTES_AT_ONCE])
def test_it_is_the_maxsim_of_the_widened_vectors(width, at_once, monkeypatch):
    monkeypatch.setattr(multivector, "_BYTES_AT_ONCE", at_once)
    packed = documents(width)
    query = MultiVectors.from_rows([units(14, width=width, seed=99)])
    index = MultiVectorIndex(packed, dtype="int8")
    rows = np.array([5, 0, 7, 7, 9, 1, 8, 6, 2, 3])
    widened = expanded(compressed(packed.vectors, "int8"), "int8")
    expected = maxsim(query, MultiVectors(widened, packed.offsets))[0]
    # the query is rounded to 15 bits: 3e-5 of its largest number, a token's numbers add up
    np.testing.assert_allclose(index.score(query, rows), expected[rows], atol=1e-4)


def test_a_score_does_not_depend_on_what_is_scored_with_it():
    index = MultiVectorIndex(documents(64), dtype="int8")
    query = MultiVectors.from_rows([units(9, width=64, seed=3)])
    together = index.score(query, np.arange(10))
    alone = [index.score(query, np.array([row]))[0] for row in range(10)]
    assert together.tolist() == alone  # to the bit: equal texts tie


def test_texts_over_several_pieces_are_put_together():
    packed, index = documents(64), MultiVectorIndex(dtype="int8")
    for row in (5, 6, 7):
        index.append(MultiVectors.from_rows([packed[row]]))
    query = MultiVectors.from_rows([units(4, width=64, seed=3)])
    whole = MultiVectorIndex(packed, dtype="int8").score(query, np.array([5, 6, 7]))
    assert index.score(query, np.arange(3)).tolist() == whole.tolist()


def test_nothing_scores_nothing():
    index = MultiVectorIndex(documents(64), dtype="int8")
    query = MultiVectors.from_rows([units(4, width=64)])
    assert index.score(query, np.zeros(0, np.int64)).tolist() == []
    assert index.score(query, np.array([0, 3])).tolist() == [0, 0]
    nothing = MultiVectors.from_rows([np.zeros((0, 64), np.float32)], dimension=64)
    assert index.score(nothing, np.array([1, 5])).tolist() == [0, 0]


def test_negative_similarities_are_not_beaten_by_nothing():
    token = units(1, width=64)
    index = MultiVectorIndex(MultiVectors.from_rows([-token, token]), dtype="int8")
    found = index.score(MultiVectors.from_rows([token]), np.arange(2))
    np.testing.assert_allclose(found, [-1, 1], atol=5e-3)
