"""The compiled kernel of MaxSim against its plain reference, wherever the vectors lie."""

import threading

import numpy as np
import pytest

from m3_retrievers import scoring
from m3_retrievers.index.stores import chunks
from m3_retrievers.index.stores.compressed import compressed, expanded
from m3_retrievers.index.stores.multivector import MultiVectorIndex
from m3_retrievers.scoring import crowd as crowds
from m3_retrievers.scoring import largest_products as cutting
from m3_retrievers.scoring import late_interaction
from m3_retrievers.types.packed import MultiVectors
from vector_packs import pack, plain_maxsim

pytestmark = pytest.mark.skipif(
    cutting.kernel() is None, reason="numba, an extra that makes it faster, is not installed"
)
LENGTHS = [5, 0, 1, 40, 0, 0, 4, 33, 2, 0]


@pytest.fixture(autouse=True)
def compiled_always(monkeypatch):
    monkeypatch.setattr(late_interaction, "_COMPILED_FROM", 0)


@pytest.fixture(params=[1, 2, 3])
def processors(request, monkeypatch):
    monkeypatch.setattr(crowds, "_crowds", [crowds.Crowd(request.param)])


@pytest.mark.usefixtures("processors")
@pytest.mark.parametrize("width", [1, 5, 16, 100])
@pytest.mark.parametrize("tokens", [1, 7, 14, 23])
def test_it_is_the_plain_maxsim(width, tokens):
    queries = pack([tokens, 0, 3], width=width, seed=1)
    for dtype in (np.float16, np.float32):
        documents = pack(LENGTHS, width=width, seed=2, dtype=dtype)
        found = scoring.maxsim(queries, documents)
        np.testing.assert_allclose(found, plain_maxsim(queries, documents), atol=1e-6)


@pytest.mark.parametrize("width", [1, 3, 64, 101])
def test_vectors_kept_in_int8_are_multiplied_as_they_are(width):
    queries, documents = pack([9], width=width, seed=3), pack(LENGTHS, width=width, seed=4)
    index = MultiVectorIndex(documents, dtype="int8")
    rows = np.array([3, 0, 7, 7, 9, 1, 8, 6, 2, 4])
    widened = expanded(compressed(documents.vectors, "int8"), "int8")
    expected = plain_maxsim(queries, MultiVectors(widened, documents.offsets))[0]
    np.testing.assert_allclose(index.score(queries, rows), expected[rows], atol=1e-6)


@pytest.mark.usefixtures("processors")
@pytest.mark.parametrize("at_once", [1, 20, 1 << 17])
@pytest.mark.parametrize("chunk", [1, 7, 1_000])  # vectors
def test_it_does_not_matter_where_documents_lie(at_once, chunk, monkeypatch):
    monkeypatch.setattr(cutting, "_VECTORS_AT_ONCE", at_once)
    queries, documents = pack([9], width=8, seed=5), pack(LENGTHS, width=8, seed=6)
    expected = scoring.maxsim(queries, documents)
    np.testing.assert_allclose(expected, plain_maxsim(queries, documents), atol=1e-6)
    monkeypatch.setattr(chunks, "_BYTES", chunk * 8 * 4)
    index = MultiVectorIndex(dtype="float32")
    for row in range(len(LENGTHS)):
        index.append(documents.take([row]))
    rows = np.array([9, 3, 3, 0, 7, 5, 1, 2, 6, 8, 4])
    # to the bit: equal texts tie
    assert index.score(queries, rows).tolist() == expected[0, rows].tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_a_score_does_not_depend_on_what_is_scored_with_it(dtype):
    index = MultiVectorIndex(pack(LENGTHS, width=33, seed=7), dtype=dtype)
    query = pack([6], width=33, seed=8)
    together = index.score(query, np.arange(len(LENGTHS)))
    alone = [index.score(query, np.array([row]))[0] for row in range(len(LENGTHS))]
    assert together.tolist() == alone


def test_numbers_too_small_for_a_float16_of_full_precision_are_what_they_are():
    small = np.full((1, 4), 2.0**-24, np.float16)  # the least above 0
    query = MultiVectors.from_rows([np.ones((1, 4), np.float32)])
    found = scoring.maxsim(query, MultiVectors.from_rows([small, -small]))
    assert found.tolist() == [[2.0**-22, -(2.0**-22)]]


def test_vectors_that_must_not_be_written_to_stay_so_and_others_do_not_become_so():
    queries, documents = pack([2], width=4, seed=9), pack([3, 2], width=4, seed=10)
    scoring.maxsim(queries, documents)
    assert documents.vectors.flags.writeable
    documents.vectors.flags.writeable = False
    np.testing.assert_allclose(
        scoring.maxsim(queries, documents), plain_maxsim(queries, documents), atol=1e-6
    )


def test_vectors_of_another_kind_are_taken_as_float32_end_to_end():
    queries, documents = pack([3], width=6, seed=14), pack([4, 2], width=6, seed=15)
    expected = plain_maxsim(queries, documents)
    wide = np.empty((6, 9))  # float64, with numbers of somebody else's behind each vector
    wide[:, :6] = documents.vectors
    part = MultiVectors(wide[:, :6], documents.offsets)
    np.testing.assert_allclose(scoring.maxsim(queries, part), expected, atol=1e-6)
    index = MultiVectorIndex(part, dtype="float32")
    np.testing.assert_allclose(index.score(queries, np.arange(2)), expected[0], atol=1e-6)


def test_several_threads_get_what_one_gets(monkeypatch):
    monkeypatch.setattr(crowds, "_crowds", [crowds.Crowd(2)])
    index = MultiVectorIndex(pack(LENGTHS * 9, width=32, seed=11))
    queries = [pack([5], width=32, seed=seed) for seed in range(6)]
    rows = np.arange(len(LENGTHS) * 9)
    expected = [index.score(query, rows).tolist() for query in queries]
    found = {}

    def ask(place):
        found[place] = [index.score(queries[place], rows).tolist() for _ in range(20)]

    callers = [threading.Thread(target=ask, args=(place,)) for place in range(6)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert found == {place: [scores] * 20 for place, scores in enumerate(expected)}


def test_little_work_and_many_query_vectors_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(late_interaction, "_COMPILED_FROM", 1_000)
    few, many = pack([4], width=10, seed=12), pack([129], width=10, seed=13)
    assert late_interaction.compiles(few, vectors=100)
    assert not late_interaction.compiles(few, vectors=99)
    assert not late_interaction.compiles(many, vectors=100)


def test_without_a_place_for_machine_code_functions_are_compiled_all_the_same(monkeypatch):
    from m3_retrievers.scoring import compiling

    def njit(*, cache=False, **_):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(compiling, "njit", njit)
    assert compiling.compiled()(abs)(-3) == 3
