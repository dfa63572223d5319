import numpy as np
import pytest
from langchain_qdrant.sparse_embeddings import SparseVector
from scipy import sparse as sp

from m3_retrievers.errors import InputError, MissingOutputError
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.representations import Representations

SPARSE = sp.csr_array(np.array([[0, 0.5, 0, 2.0], [0, 0, 0, 0], [1.0, 0, 0, 0]], np.float32))


@pytest.fixture
def three() -> Representations:
    return Representations(
        dense=np.eye(3, dtype=np.float32),
        sparse=SPARSE,
        colbert=MultiVectors.from_rows([np.full((n, 2), n, np.float32) for n in (2, 1, 3)]),
    )


def test_one_row_is_a_record_of_one_text(three):
    last = three[-1]
    assert len(last) == 1
    assert last.dense.tolist() == [[0, 0, 1]]
    assert last.to_dicts() == [{0: 1.0}]
    assert last.colbert[0].tolist() == [[3, 3]] * 3
    with pytest.raises(IndexError):
        three[3]


def test_rows_are_taken_in_the_order_asked_for(three):
    chosen = three[np.array([2, 0])]
    assert chosen.colbert.lengths.tolist() == [3, 2]
    assert three[1:].to_dicts() == [{}, {0: 1.0}]


def test_parts_put_together_are_the_whole(three):
    whole = Representations.concatenate([three[:1], three[1:1], three[1:]])
    assert whole.dense.tolist() == three.dense.tolist()
    assert whole.to_dicts() == three.to_dicts()
    assert whole.colbert.offsets.tolist() == three.colbert.offsets.tolist()
    assert len(Representations.concatenate([])) == 0
    with pytest.raises(InputError, match="same outputs"):
        Representations.concatenate([three, three.select(["dense"])])


def test_every_conversion_takes_an_empty_row(three):
    assert three.to_dicts() == [{1: 0.5, 3: 2.0}, {}, {0: 1.0}]
    assert three.to_lists() == ([[1, 3], [], [0]], [[0.5, 2.0], [], [1.0]])
    assert three.to_flag_embedding() == [{"1": 0.5, "3": 2.0}, {}, {"0": 1.0}]
    vectors = three.to_sparse_vectors(SparseVector)
    assert vectors[0] == SparseVector(indices=[1, 3], values=[0.5, 2.0])
    assert vectors[1] == SparseVector(indices=[], values=[])
    kinds = {type(key) for row in three.to_dicts() for key in row}
    assert kinds == {int}


def test_conversions_of_no_rows_are_empty(three):
    nothing = three[:0]
    assert nothing.to_dicts() == []
    assert nothing.to_lists() == ([], [])
    assert nothing.to_sparse_vectors(SparseVector) == []


def test_outputs_that_disagree_about_the_texts_are_refused():
    with pytest.raises(InputError, match="same texts"):
        Representations(dense=np.eye(2, dtype=np.float32), sparse=SPARSE)
    with pytest.raises(InputError, match="offsets"):
        MultiVectors(np.ones((3, 2), np.float32), np.array([0, 2]))
    with pytest.raises(InputError, match="offsets"):
        MultiVectors(np.ones((3, 2), np.float32), np.array([0, 4, 3]))


def test_an_output_that_was_not_computed_says_how_to_get_it(three):
    dense = three.select(["dense"])
    with pytest.raises(MissingOutputError, match="Encode with outputs="):
        dense.to_dicts()
    with pytest.raises(MissingOutputError, match="sparse"):
        dense.select(["sparse"])


def test_a_text_without_vectors_scores_nothing():
    from m3_retrievers.scoring.late_interaction import maxsim

    some = MultiVectors.from_rows([np.eye(2, dtype=np.float32), np.empty((0, 2), np.float32)])
    assert maxsim(some, some).tolist() == [[1.0, 0.0], [0.0, 0.0]]
