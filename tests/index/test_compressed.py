"""Token vectors kept in fewer bytes: what they say afterwards, and how exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse as sp

import reference
from m3_retrievers.errors import IndexCorruptError, InputError
from m3_retrievers.index.durable.index import DurableIndex
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.index.snapshot.storage import write_generation
from m3_retrievers.index.stores.compressed import (
    COLBERT_DTYPES,
    compressed,
    compression_fault,
    expanded,
    scales_of,
)
from m3_retrievers.index.stores.multivector import MultiVectorIndex
from m3_retrievers.index.stores.pooling import pooled
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.representations import Representations


def units(count: int, *, seed: int, width: int = 16):
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def texts(lengths, *, seed: int = 0, width: int = 16) -> MultiVectors:
    vectors = units(sum(lengths), seed=seed, width=width)
    return MultiVectors(vectors, np.cumsum([0, *lengths]))


def of(documents: MultiVectors) -> list[Record]:
    return [Record(str(at), "") for at in range(len(documents))]


lengths = st.lists(st.integers(0, 6), min_size=1, max_size=8)
seeds = st.integers(0, 10_000)


@given(lengths, seeds, st.sampled_from(COLBERT_DTYPES), st.integers(1, 4))
def test_maxsim_of_what_is_kept_is_that_of_its_definition(sizes, seed, dtype, tokens):
    documents, query = texts(sizes, seed=seed), texts([tokens], seed=seed + 1)
    index = MultiVectorIndex(dtype=dtype)
    index.append(documents)
    kept = index.take(np.arange(len(sizes)))
    found = index.score(query, np.arange(len(sizes)))
    asked = query[0].astype(float).tolist()
    expected = [reference.maxsim(asked, row.astype(float).tolist()) for row in kept]
    # beside int8 vectors the query is rounded to 15 bits a number
    np.testing.assert_allclose(found, expected, atol=1e-4 if dtype == "int8" else 1e-6)


@given(seeds, st.floats(1e-30, 1e30))
def test_int8_moves_no_number_by_more_than_half_a_scale(seed, size):
    vectors = units(5, seed=seed) * np.float32(size)
    kept = compressed(vectors, "int8")
    scales = scales_of(kept)
    assert kept.dtype == np.int8
    np.testing.assert_allclose(scales[:, 0], np.abs(vectors).max(axis=1) / 127, rtol=1e-6)
    assert np.all(np.abs(expanded(kept, "int8") - vectors) <= 0.5001 * scales)


def test_int8_keeps_what_it_can_hold():
    vectors = np.array([[127, -3, 0], [0, 0, 0], [-2, 2, 0]], np.float32)
    assert expanded(compressed(vectors, "int8"), "int8").tolist() == vectors.tolist()
    again = compressed(expanded(compressed(units(9, seed=1), "int8"), "int8"), "int8")
    np.testing.assert_array_equal(again[:, :16], compressed(units(9, seed=1), "int8")[:, :16])


def test_int8_moves_a_score_by_less_than_a_hundredth():
    documents, query = texts([8] * 100, width=64), texts([5], seed=1, width=64)
    exact = MultiVectorIndex(documents, dtype="float32").score(query, np.arange(100))
    found = MultiVectorIndex(documents, dtype="int8").score(query, np.arange(100))
    assert 0 < np.abs(found - exact).max() < 1e-2


@pytest.mark.parametrize("scale", [0, -1, np.nan, np.inf])
def test_a_scale_that_is_no_size_is_a_fault(scale):
    kept = compressed(units(3, seed=0), "int8")
    assert compression_fault(kept, "int8") is None
    kept[1, -4:] = np.array([scale], np.float32).view(np.int8)
    assert compression_fault(kept, "int8")
    assert compression_fault(kept[:, :3], "int8")


def test_memory_is_what_the_dtype_says():
    documents = texts([10] * 20, width=64)
    sizes = {
        dtype: MultiVectorIndex(documents, dtype=dtype)
        .arrays(np.arange(20))["colbert.vectors"]
        .nbytes
        for dtype in COLBERT_DTYPES
    }
    assert sizes == {"float16": 25_600, "float32": 51_200, "int8": 200 * (64 + 4)}


# Token pooling


def test_vectors_that_lie_together_become_their_mean():
    documents = MultiVectors.from_rows(
        [np.array([[1, 0], [0.8, 0.6], [-1, 0], [-0.8, 0.6]], np.float32)]
    )
    found = pooled(documents, factor=2)[0]
    half = np.sqrt(0.9)  # the mean of (1, 0) and (0.8, 0.6) is (0.9, 0.3), of length √0.9
    expected = [[0.9 / half, 0.3 / half], [-0.9 / half, 0.3 / half]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@given(lengths, seeds, st.integers(1, 5))
def test_pooling_keeps_a_share_of_each_text_and_no_text_depends_on_another(sizes, seed, factor):
    documents = texts(sizes, seed=seed)
    found = pooled(documents, factor=factor)
    assert np.all(found.lengths <= -(-documents.lengths // factor))
    assert np.all((found.lengths == 0) == (documents.lengths == 0))
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    for at, row in enumerate(documents):
        alone = pooled(MultiVectors.from_rows([row]), factor=factor)
        np.testing.assert_array_equal(alone[0], found[at])


def test_vectors_that_are_equal_pool_into_themselves():
    same = np.repeat(units(2, seed=3), 4, axis=0)
    found = pooled(MultiVectors.from_rows([same]), factor=4)[0]
    np.testing.assert_allclose(found, units(2, seed=3), atol=1e-6)


def test_factor_1_changes_nothing():
    documents = texts([3, 0, 5])
    assert pooled(documents, factor=1) is documents


# In an index


@pytest.mark.parametrize("dtype", COLBERT_DTYPES)
@pytest.mark.parametrize("factor", [1, 2])
def test_an_index_is_the_same_after_saving_deleting_and_adding(tmp_path, dtype, factor):
    def made(part: MultiVectors) -> Representations:
        return Representations(colbert=part)

    documents, query = texts([5, 1, 4, 6, 2, 3]), Query("", made(texts([3], seed=1)))
    index = LocalIndex(modes=("colbert",), colbert_dtype=dtype, colbert_pool_factor=factor)
    index.add(of(documents)[:4], made(documents.take(range(4))))
    index.delete(["1"])
    index.save(tmp_path / "saved")
    loaded = LocalIndex.load(tmp_path / "saved")
    for one in (index, loaded):
        one.add(of(documents)[4:], made(documents.take([4, 5])))
    ids = ["0", "2", "3", "4", "5"]
    kept = loaded.vectors(ids).require("colbert")
    assert kept.lengths.tolist() == [-(-n // factor) for n in (5, 4, 6, 2, 3)]
    exact = pooled(documents.take([0, 2, 3, 4, 5]), factor=factor)
    np.testing.assert_allclose(kept.vectors, exact.vectors, atol=5e-3)
    np.testing.assert_array_equal(
        index.score(query, "colbert", ids), loaded.score(query, "colbert", ids)
    )


def saved(folder, index: LocalIndex, **changes) -> None:
    """Save an index with other settings or arrays than it would."""
    arrays = index._table.stores.arrays(np.arange(len(index)))[0]
    settings = {"modes": ["colbert"], "colbert_dtype": index.colbert_dtype, "weighting": None}
    write_generation(
        folder,
        arrays={name: changes.get(name, array) for name, array in arrays.items()},
        documents=index.get(list(index.ids)),
        settings={**settings, "extra": {}},
        model=None,
    )


def test_an_index_saved_before_there_was_pooling_loads(tmp_path):
    index = LocalIndex(modes=("colbert",))
    index.add(of(texts([2])), Representations(colbert=texts([2])))
    saved(tmp_path / "old", index)
    kept = LocalIndex.load(tmp_path / "old").vectors(["0"]).require("colbert")
    np.testing.assert_array_equal(kept.vectors, index.vectors(["0"]).require("colbert").vectors)


def test_a_saved_scale_that_is_no_size_is_refused(tmp_path):
    index = LocalIndex(modes=("colbert",), colbert_dtype="int8")
    index.add(of(texts([2])), Representations(colbert=texts([2])))
    kept = np.array(index._table.stores.arrays(np.arange(1))[0]["colbert.vectors"])
    kept[1, -4:] = np.array([np.inf], np.float32).view(np.int8)
    saved(tmp_path / "forged", index, **{"colbert.vectors": kept})
    with pytest.raises(IndexCorruptError, match="scale"):
        LocalIndex.load(tmp_path / "forged")


@pytest.mark.parametrize("factor", [0, -1, 1.5, True, None])
def test_a_factor_is_an_integer_from_1(factor):
    with pytest.raises(InputError, match="colbert_pool_factor expects an integer"):
        LocalIndex(colbert_pool_factor=factor)


def test_dense_and_sparse_are_kept_whole_beside_it():
    dense, sparse = units(2, seed=5), sp.csr_array(np.eye(2, 7, dtype=np.float32))
    index = LocalIndex(colbert_dtype="int8", colbert_pool_factor=2)
    documents = texts([4, 4])
    index.add(of(documents), Representations(dense=dense, sparse=sparse, colbert=documents))
    found = index.vectors(["0", "1"])
    np.testing.assert_array_equal(found.require("dense"), dense)
    np.testing.assert_array_equal(found.require("sparse").toarray(), sparse.toarray())


@pytest.mark.parametrize("place", ["disk", "memory"])
@pytest.mark.parametrize(("dtype", "factor"), [("int8", 1), ("float16", 2), ("int8", 3)])
def test_a_durable_index_scores_as_a_local_one_does(tmp_path, place, dtype, factor):
    documents, query = texts([5, 1, 4, 6]), Query("", Representations(colbert=texts([3], seed=1)))
    options = {"colbert_dtype": dtype, "colbert_pool_factor": factor}
    local = LocalIndex(modes=("colbert",), **options)
    durable = DurableIndex(tmp_path / "i", modes=("colbert",), colbert=place, **options)
    for index in (local, durable):
        index.add(of(documents), Representations(colbert=documents))
        index.delete(["1"])
        index.upsert([Record("2", "")], Representations(colbert=documents.take([3])))
    with DurableIndex(tmp_path / "i", colbert=place) as again:
        for index in (durable, again):
            ids = list(local.ids)
            found = index.vectors(ids).require("colbert")
            np.testing.assert_array_equal(found.vectors, local.vectors(ids).colbert.vectors)
            scores = index.score(query, "colbert", ids)
            np.testing.assert_array_equal(scores, local.score(query, "colbert", ids))
    durable.close()


def test_a_file_keeps_the_factor_it_was_made_with(tmp_path):
    DurableIndex(tmp_path / "i", colbert_pool_factor=2).close()
    with pytest.raises(InputError, match="made with colbert_pool_factor 2, got 3"):
        DurableIndex(tmp_path / "i", colbert_pool_factor=3)
