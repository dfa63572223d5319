import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse as sp

from m3_retrievers.errors import (
    DuplicateIdError,
    FilterError,
    InputError,
    MissingOutputError,
    SavedIndexError,
)
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.scoring.modes import by_mode
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.representations import Representations

WORDS = ("river", "bridge", "page", "clock", "book", "cat")
WIDTH, VOCABULARY = 8, 40

BUILDERS = {
    "all modes, float32": lambda: LocalIndex(weighting=BM25(), colbert_dtype="float32"),
    "all modes, float16": lambda: LocalIndex(weighting=BM25()),
    "dense only": lambda: LocalIndex(modes=("dense",)),
    "BM25 only": lambda: LocalIndex(modes=(), weighting=BM25()),
}


def represent(count: int, *, seed: int = 0) -> Representations:
    rng = np.random.default_rng(seed)

    def unit(rows):
        vectors = rng.standard_normal((rows, WIDTH)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    if not count:
        return Representations(
            dense=unit(0), sparse=sp.csr_array((0, VOCABULARY), dtype=np.float32)
        )
    weights = rng.random((count, VOCABULARY), np.float32) * (rng.random((count, VOCABULARY)) < 0.2)
    return Representations(
        dense=unit(count),
        sparse=sp.csr_array(weights.astype(np.float32)),
        colbert=MultiVectors.from_rows([unit(int(rng.integers(1, 6))) for _ in range(count)]),
    )


def records(count: int, *, first: int = 0) -> list[Record]:
    return [
        Record(
            f"d{number}",
            " ".join(WORDS[(number * step) % len(WORDS)] for step in (1, 2, 5)),
            {"number": number, "even": number % 2 == 0},
        )
        for number in range(first, first + count)
    ]


QUERY = Query("river bridge book", represent(1, seed=99))


@pytest.fixture(params=BUILDERS, ids=lambda name: name.replace(" ", "-"))
def index(request):
    return BUILDERS[request.param]()


def answers(index: LocalIndex, **options) -> dict[str, list[tuple[str, float]]]:
    found = {}
    for mode in sorted(index.modes):
        ranking = index.recall(QUERY, mode, k=None, **options)
        found[mode] = list(zip(ranking.ids, ranking.scores.tolist(), strict=True))
    return found


def same(left, right) -> None:
    assert left.keys() == right.keys()
    for mode in left:
        assert [id for id, _ in left[mode]] == [id for id, _ in right[mode]]
        np.testing.assert_allclose(
            [s for _, s in left[mode]], [s for _, s in right[mode]], atol=1e-6
        )


def test_records_come_out_as_they_went_in(index):
    index.add(records(5), represent(5))
    assert len(index) == 5
    assert index.ids == ("d0", "d1", "d2", "d3", "d4")
    assert "d3" in index
    assert "nobody" not in index
    assert index.get(["d3", "nobody", "d0"]) == [records(5)[3], records(5)[0]]
    assert index.in_order(["d3", "x", "d0", "d3"]) == ["d0", "d3"]


def test_nothing_in_gives_nothing_out(index):
    index.add([], Representations())
    assert len(index) == 0
    assert all(found == [] for found in answers(index).values())
    assert index.delete(["d0"]) == []


def test_recall_equals_scoring_everything(index):
    index.add(records(30), represent(30))
    everything = represent(30)
    for mode in index.modes - {"bm25"}:
        expected = by_mode(mode, QUERY.representations, everything)[0]
        found = dict(answers(index)[mode])
        tolerance = 1e-3 if mode == "colbert" else 1e-6
        for row in range(30):
            assert found.get(f"d{row}", 0.0) == pytest.approx(expected[row], abs=tolerance)


def test_score_equals_recall_for_any_choice_of_documents(index):
    index.add(records(30), represent(30))
    chosen = ["d7", "d29", "d0", "d7"]
    for mode in index.modes:
        found = dict(answers(index)[mode])
        expected = [found.get(id, 0.0) for id in chosen]
        np.testing.assert_allclose(index.score(QUERY, mode, chosen), expected, atol=1e-6)


@settings(max_examples=20)
@given(st.permutations(range(12)), st.sampled_from(sorted(BUILDERS)))
def test_the_order_of_insertion_changes_no_score(order, name):
    index, shuffled = BUILDERS[name](), BUILDERS[name]()
    rows = np.array(order, np.int64)
    index.add(records(12), represent(12))
    shuffled.add([records(12)[row] for row in order], represent(12)[rows])
    for mode in index.modes:
        ids = [f"d{number}" for number in range(12)]
        np.testing.assert_allclose(
            shuffled.score(QUERY, mode, ids), index.score(QUERY, mode, ids), atol=1e-6
        )


def test_k_cuts_the_ranking_and_nothing_else(index):
    index.add(records(30), represent(30))
    for mode, everything in answers(index).items():
        best = index.recall(QUERY, mode, k=4)
        assert list(best.ids) == [id for id, _ in everything[:4]]


@pytest.mark.parametrize("k", [0, -1, True, 2.5, "3"])
def test_k_below_one_is_refused(index, k):
    index.add(records(3), represent(3))
    for mode in index.modes:
        with pytest.raises(InputError, match="at least 1"):
            index.recall(QUERY, mode, k=k)


def test_filters_apply_before_the_cut_in_every_leg(index):
    index.add(records(30), represent(30))
    for mode, everything in answers(index).items():
        odd = [id for id, _ in everything if int(id[1:]) % 2]
        found = index.recall(QUERY, mode, k=5, filter={"even": False})
        assert list(found.ids) == odd[:5]
        worst = everything[-1][0]
        only = index.recall(QUERY, mode, k=5, filter={"number": int(worst[1:])})
        assert only.ids == (worst,)


def test_an_unknown_filter_operator_is_refused(index):
    index.add(records(3), represent(3))
    for mode in index.modes:
        with pytest.raises(FilterError, match=r"\$near"):
            index.recall(QUERY, mode, k=1, filter={"number": {"$near": 1}})


def test_a_filter_sees_what_changed_since_it_was_last_used(index):
    index.add(records(4), represent(4))
    even = {"even": True}
    before = {mode: {id for id, _ in found} for mode, found in answers(index, filter=even).items()}
    index.delete(["d0"])
    index.add(records(1, first=6), represent(1, seed=6))
    for mode, found in answers(index, filter=even).items():
        assert {id for id, _ in found} == (before[mode] - {"d0"}) | {"d6"}


def test_equal_documents_rank_in_order_of_insertion(index):
    same_rows = represent(1)[np.zeros(5, np.int64)]
    index.add([Record(id, "river bridge") for id in "ecadb"], same_rows)
    for mode, found in answers(index).items():
        assert "".join(id for id, _ in found) in ("ecadb", ""), mode


@pytest.mark.parametrize("call", ["add", "upsert"])
def test_an_id_twice_in_a_call_is_refused_and_nothing_is_stored(index, call):
    twice = [*records(2), records(1)[0]]
    with pytest.raises(DuplicateIdError, match="'d0' twice"):
        getattr(index, call)(twice, represent(3))
    assert len(index) == 0


def test_a_known_id_is_refused_by_add_and_nothing_is_stored(index):
    index.add(records(2), represent(2))
    before = answers(index)
    with pytest.raises(DuplicateIdError, match="d1"):
        index.add(records(2, first=1), represent(2, seed=5))
    assert index.ids == ("d0", "d1")
    same(answers(index), before)


def test_upsert_replaces_and_counts_as_a_new_insertion(index):
    index.add(records(3), represent(3))
    index.upsert([Record("d0", "clock cat", {"number": 77})], represent(1, seed=7))
    assert index.ids == ("d1", "d2", "d0")
    assert index.get(["d0"]) == [Record("d0", "clock cat", {"number": 77})]
    fresh = type(index)(
        modes=index._table.stores.stored,
        weighting=BM25() if "bm25" in index.modes else None,
        colbert_dtype=index.colbert_dtype,
    )
    fresh.add(
        [*records(3)[1:], Record("d0", "clock cat", {"number": 77})],
        Representations.concatenate([represent(3)[1:], represent(1, seed=7)]),
    )
    same(answers(index), answers(fresh))


def test_what_is_deleted_is_gone_from_every_leg(index):
    index.add(records(10), represent(10))
    assert index.delete(["d3", "nobody", "d3", "d8"]) == ["d3", "d8"]
    assert len(index) == 8
    assert index.get(["d3"]) == []
    for found in answers(index).values():
        assert not {"d3", "d8"} & {id for id, _ in found}
    with pytest.raises(InputError, match="d3"):
        index.score(QUERY, next(iter(index.modes)), ["d3"])


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_adds_and_deletes_equal_a_fresh_index_of_what_is_left(data):
    name = data.draw(st.sampled_from(sorted(BUILDERS)))
    index, fresh = BUILDERS[name](), BUILDERS[name]()
    whole = represent(24)
    gone = data.draw(st.sets(st.integers(0, 23)))
    for first in range(0, 24, 8):
        index.add(records(8, first=first), whole[first : first + 8])
        answers(index)  # statistics are taken in between, and have to be taken again
    index.delete([f"d{number}" for number in sorted(gone)])
    left = [number for number in range(24) if number not in gone]
    fresh.add([records(24)[number] for number in left], whole[np.array(left, np.int64)])
    same(answers(index), answers(fresh))


def test_many_deletes_compact_and_change_no_answer(index):
    index.add(records(2_200), represent(2_200))
    kept = represent(2_200)[np.arange(1_500, 2_200)]
    index.delete([f"d{number}" for number in range(1_500)])
    assert len(index._table.live) == 700
    if "colbert" in index.modes:  # neighbours are left, and what went takes no memory
        (vectors,) = index._table.stores.colbert._kept.parts
        assert vectors.base.nbytes == vectors.nbytes
    fresh = type(index)(
        modes=index._table.stores.stored,
        weighting=BM25() if "bm25" in index.modes else None,
        colbert_dtype=index.colbert_dtype,
    )
    fresh.add(records(700, first=1_500), kept)
    same(answers(index), answers(fresh))


def test_representations_that_do_not_fit_are_refused_and_nothing_is_stored():
    index = LocalIndex()
    index.add(records(2), represent(2))
    more = records(2, first=2)
    with pytest.raises(InputError, match="row of representations for each of 2"):
        index.add(more, represent(3))
    with pytest.raises(MissingOutputError, match="colbert"):
        index.add(more, represent(2).select(("dense", "sparse")))
    wide = Representations(
        dense=np.ones((2, WIDTH + 1), np.float32),
        sparse=represent(2).sparse,
        colbert=represent(2).colbert,
    )
    with pytest.raises(InputError, match="width 8, got 9"):
        index.add(more, wide)
    assert len(index) == 2
    legs = index._table.stores
    assert len(legs.dense) == len(legs.sparse) == len(legs.colbert) == 2


@pytest.mark.parametrize("name", ["dense", "sparse", "colbert"])
def test_numbers_that_are_not_finite_are_refused_and_nothing_is_stored(name):
    index = LocalIndex(weighting=BM25())
    index.add(records(3), represent(3))
    before = answers(index)
    bad = represent(2, seed=4)
    numbers = {"dense": bad.dense, "sparse": bad.sparse.data, "colbert": bad.colbert.vectors}
    numbers[name].flat[0] = np.nan
    with pytest.raises(InputError, match=f"finite {name}"):
        index.upsert(records(2, first=2), bad)
    assert index.ids == ("d0", "d1", "d2")
    assert answers(index) == before


class InterruptedBM25(BM25):
    """A weighting during which the user presses Ctrl-C, once: the last leg of an add."""

    pressed = False

    def count(self, texts):
        if "stop" in texts and not self.pressed:
            self.pressed = True
            raise KeyboardInterrupt
        return super().count(texts)


def test_an_interrupted_upsert_leaves_the_index_as_it_was_and_can_be_repeated():
    index, fresh = LocalIndex(weighting=InterruptedBM25()), LocalIndex(weighting=BM25())
    replacing = [Record("d1", "stop"), Record("d9", "river")]
    for every in (index, fresh):
        every.add(records(3), represent(3))
    with pytest.raises(KeyboardInterrupt):
        index.upsert(replacing, represent(2, seed=4))
    assert index.ids == ("d0", "d1", "d2")
    assert answers(index) == answers(fresh)
    for every in (index, fresh):
        every.upsert(replacing, represent(2, seed=4))
    assert index.ids == ("d0", "d2", "d1", "d9")
    same(answers(index), answers(fresh))


def test_an_interrupted_first_add_leaves_an_empty_index_that_works():
    index = LocalIndex(weighting=InterruptedBM25())
    with pytest.raises(KeyboardInterrupt):
        index.add([Record("d0", "stop")], represent(1))
    assert len(index) == 0
    assert all(found == [] for found in answers(index).values())
    index.add(records(4), represent(4))
    assert index.ids == ("d0", "d1", "d2", "d3")


def test_a_query_of_several_texts_is_refused(index):
    index.add(records(3), represent(3))
    for mode in index.modes - {"bm25"}:
        with pytest.raises(InputError, match="one"):
            index.recall(Query("river", represent(2)), mode, k=1)
        with pytest.raises(InputError, match="one"):
            index.score(Query("river", represent(2)), mode, ["d0"])


@pytest.mark.parametrize("bad", [{"x": {1, 2}}, {"x": object()}, {3: "x"}])
def test_metadata_that_is_no_json_is_refused_with_its_document_and_nothing_is_stored(index, bad):
    with pytest.raises(InputError, match="d1"):
        index.add([Record("d0", "a"), Record("d1", "b", bad)], represent(2))
    assert len(index) == 0
    assert all(found == [] for found in answers(index).values())


def test_no_one_changes_the_index_by_changing_metadata(index):
    about = {"tags": ["a"]}
    index.add([Record("d0", "river", about)], represent(1))
    about["tags"].append("b")
    index.get(["d0"])[0].metadata["tags"].append("c")
    assert index.get(["d0"])[0].metadata == {"tags": ["a"]}


def test_a_mode_the_index_lacks_is_refused():
    index = LocalIndex(modes=("dense",))
    index.add(records(1), represent(1))
    with pytest.raises(MissingOutputError, match="sparse"):
        index.recall(QUERY, "sparse", k=1)
    with pytest.raises(InputError, match="modes expects"):
        LocalIndex(modes=("colours",))
    with pytest.raises(InputError, match="dtype"):
        LocalIndex(colbert_dtype="float8")


def test_a_saved_index_answers_bit_for_bit_as_before(index, tmp_path):
    index.add(records(20), represent(20))
    index.delete(["d4", "d11"])
    index.save(tmp_path / "index", extra={"note": 1})
    loaded = LocalIndex.load(tmp_path / "index", weighting=BM25.from_state)
    assert loaded.ids == index.ids
    assert loaded.modes == index.modes
    assert loaded.get(loaded.ids) == index.get(index.ids)
    assert answers(loaded) == answers(index)
    assert loaded.extra == {"note": 1}
    loaded.add(records(2, first=50), represent(2, seed=50))
    index.add(records(2, first=50), represent(2, seed=50))
    same(answers(loaded), answers(index))


def test_an_empty_index_is_saved_and_loaded(index, tmp_path):
    index.save(tmp_path / "index")
    loaded = LocalIndex.load(tmp_path / "index", weighting=BM25.from_state)
    assert len(loaded) == 0
    loaded.add(records(3), represent(3))
    assert len(loaded) == 3


def test_an_index_with_bm25_says_how_to_load_it(tmp_path):
    index = BUILDERS["BM25 only"]()
    index.add(records(2), Representations())
    index.save(tmp_path / "index")
    with pytest.raises(SavedIndexError, match="weighting="):
        LocalIndex.load(tmp_path / "index")


def test_bm25_follows_its_tokenless_and_unknown_queries(index):
    index.add([Record("d0", "!!!"), Record("d1", "river")], represent(2))
    if "bm25" in index.modes:
        assert index.recall(Query("nothing known"), "bm25", k=5).ids == ()
        assert index.recall(Query("river"), "bm25", k=5).ids == ("d1",)
        assert index.scale(Query("nothing known"), "bm25") == 0


def test_threads_may_search_while_others_add(index):
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 20):
                index.add(records(1, first=number), represent(1, seed=number))
                for mode in index.modes:
                    found = index.recall(QUERY, mode, k=3, filter={"even": True})
                    assert len(found) <= 3
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(index) == 60


def test_one_string_is_not_taken_for_a_list_of_ids():
    index = LocalIndex(modes=("dense",))
    index.add([Record("d", "a letter")], represent(1))
    for call in (index.get, index.delete, index.vectors, index.in_order):
        with pytest.raises(InputError, match=r"expects a list of ids, got one string 'd'"):
            call("d")
    with pytest.raises(InputError, match="got one string 'd'"):
        index.score(QUERY, "dense", "d")
    assert index.ids == ("d",)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_stored_vectors_come_in_the_order_asked_for_through_deletes_and_replacements(dtype):
    index, whole = LocalIndex(colbert_dtype=dtype), represent(6)
    for first in range(0, 4, 2):
        index.add(records(2, first=first), whole[first : first + 2])
    index.delete(["d0"])
    index.upsert(records(1, first=2), whole[5])  # "d2", with another's numbers
    found, expected = index.vectors(["d3", "d2", "d3"]), whole[np.array([3, 5, 3])]
    assert np.array_equal(found.dense, expected.dense)
    assert np.array_equal(found.sparse.toarray(), expected.sparse.toarray())
    assert found.colbert.vectors.dtype == dtype
    assert found.colbert.offsets.tolist() == expected.colbert.offsets.tolist()
    assert np.array_equal(found.colbert.vectors, expected.colbert.astype(dtype).vectors)
    assert index.vectors(["d3"], outputs=("sparse",)).outputs == ("sparse",)
    assert len(index.vectors([])) == 0
    with pytest.raises(InputError, match="ids of the index, got 'd0'"):
        index.vectors(["d3", "d0"])
    with pytest.raises(MissingOutputError, match="'tokens'"):
        index.vectors(["d3"], outputs=("tokens",))


def test_writing_into_stored_vectors_changes_no_answer():
    index = LocalIndex()
    index.add(records(3), represent(3))
    before = answers(index)
    found = index.vectors(["d0", "d1", "d2"])
    for numbers in (found.dense, found.sparse.data, found.colbert.vectors):
        numbers[:] = 0
    same(answers(index), before)


def test_words_of_deleted_documents_are_neither_saved_nor_kept_at_compaction(tmp_path):
    index = LocalIndex(modes=(), weighting=BM25())
    index.add([Record("a", "river secret"), Record("b", "river page")], Representations())
    index.delete(["a"])
    before = index.recall(Query("river page"), "bm25", k=5)
    index.save(tmp_path)
    assert not any(b"secret" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    loaded = LocalIndex.load(tmp_path, weighting=BM25.from_state)
    after = loaded.recall(Query("river page"), "bm25", k=5)
    assert (after.ids, after.scores.tolist()) == (before.ids, before.scores.tolist())
    index.add([Record(f"x{n}", f"word{n}") for n in range(1_500)], Representations())
    index.delete([f"x{n}" for n in range(1_500)])
    assert index.weighting.column("word7") is None
    assert index.recall(Query("river page"), "bm25", k=5).ids == ("b",)
    index.add([Record("c", "word7 secret")], Representations())
    assert index.recall(Query("word7"), "bm25", k=5).ids == ("c",)


@pytest.mark.parametrize("given", ["text", {"id": "a"}, [{"id": "a"}], ["text"], None, [None]])
def test_what_is_no_list_of_records_is_refused(given):
    index = LocalIndex(modes=())
    for put in (index.add, index.upsert):
        with pytest.raises(InputError, match="expects"):
            put(given, Representations())
    assert len(index) == 0
