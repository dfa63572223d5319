"""Many threads search a local index at once, and others change it meanwhile."""

import copy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import sparse as sp

from m3_retrievers.errors import InputError
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.plan import HybridWeights, Plan, Recall
from m3_retrievers.types.representations import Representations

WIDTH, TERMS, COUNT, THREADS = 8, 30, 24, 8
PLAN = Plan(
    legs=("dense", "sparse", "bm25"),
    recall=Recall(dense=9, lexical=9),
    weights=HybridWeights(dense=0.4, sparse=0.2, colbert=0.4),
    fusion=None,
    outputs=("dense", "sparse", "colbert"),
)


def represent(count: int, *, seed: int) -> Representations:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count * 3, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weights = rng.random((count, TERMS), np.float32) * (rng.random((count, TERMS)) < 0.4)
    return Representations(
        dense=vectors[:count],
        sparse=sp.csr_array(weights.astype(np.float32)),
        colbert=MultiVectors(vectors, np.arange(0, count * 3 + 1, 3)),
    )


def state(version: int) -> tuple[list[Record], Representations]:
    """Return the documents of a version: all of them say which it is, and have its vectors."""
    texts = [f"river {'bridge ' * (row % 3)}version{version}" for row in range(COUNT)]
    found = [Record(f"d{row}", text, {"version": version}) for row, text in enumerate(texts)]
    return found, represent(COUNT, seed=version)


def made(version: int = 0) -> LocalIndex:
    index = LocalIndex(weighting=BM25())
    index.add(*state(version))
    return index


QUERIES = [Query("river bridge", represent(1, seed=100 + number)) for number in range(4)]


def answer(index: LocalIndex, query: Query, **options):
    hits = index.search(query, PLAN, k=10, **options).hits
    return [(hit.id, hit.text, hit.scores, hit.ranks) for hit in hits]


def run(*functions) -> None:
    """Run functions in threads that take turns at every step; raise what one of them raises."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(len(functions)) as pool:
            for running in [pool.submit(function) for function in functions]:
                running.result(60)
    finally:
        sys.setswitchinterval(before)


def test_searches_are_inside_at_the_same_time():
    index, together = made(), threading.Barrier(THREADS)

    def search():
        with index.snapshot():
            together.wait(10)
            assert answer(index, QUERIES[0])

    run(*[search] * THREADS)


def test_threads_get_what_one_alone_gets():
    index = made()
    expected = [answer(index, query) for query in QUERIES]

    def search():
        for query, one in zip(QUERIES * 5, expected * 5, strict=True):
            assert answer(index, query) == one

    run(*[search] * THREADS)


@pytest.mark.parametrize("filter", [None, {"version": {"$gte": 0}}], ids=["all", "filter"])
def test_each_answer_belongs_to_one_state(filter):
    versions = 3
    expected = [[answer(made(version), query) for version in range(versions)] for query in QUERIES]
    index, done = made(), threading.Event()
    seen: set[int] = set()

    def change():
        version = 0
        while not done.is_set():
            version = (version + 1) % versions
            records, vectors = state(version)
            index.upsert(records, vectors)

    def search():
        for number in range(15):
            at = number % len(QUERIES)
            seen.add(expected[at].index(answer(index, QUERIES[at], filter=filter)))

    def searches():
        try:
            run(*[search] * THREADS)
        finally:
            done.set()

    run(change, searches)
    assert len(seen) > 1  # or nothing was changed meanwhile


def test_deletes_and_additions_are_seen_whole():
    index, done = made(), threading.Event()
    extra, vectors = state(0)
    extra = [Record(f"x{row}", record.text, {}) for row, record in enumerate(extra)]

    def change():
        while not done.is_set():
            index.add(extra, vectors)
            index.delete([record.id for record in extra])

    def look():
        for _ in range(40):
            with index.snapshot():
                ids = index.ids
                assert len(ids) == len(index) in (COUNT, 2 * COUNT)
                found = index.recall(QUERIES[0], "bm25", k=None).ids
                assert set(found) == set(ids)
                assert len(index.score(QUERIES[0], "colbert", ids)) == len(ids)
                assert index.ids == ids

    def looks():
        try:
            run(*[look] * THREADS)
        finally:
            done.set()

    run(change, looks)


def test_searches_that_come_after_a_change_fit_the_weighting_once(monkeypatch):
    index, fits = made(), []
    fit = BM25.fit

    def counted(self, counts):
        fits.append(counts.shape)
        threading.Event().wait(0.02)  # long enough for the others to come
        fit(self, counts)

    monkeypatch.setattr(BM25, "fit", counted)
    together = threading.Barrier(THREADS)

    def search():
        with index.snapshot():
            together.wait(10)
            assert answer(index, QUERIES[0])

    run(*[search] * THREADS)
    assert len(fits) == 1


def test_a_change_inside_a_snapshot_of_the_same_thread_is_made():
    index = made()
    with index.snapshot():
        assert index.delete(["d3"]) == ["d3"]
        assert "d3" not in index.ids
        assert "d3" not in copy.deepcopy(index)


def test_two_threads_that_change_inside_snapshots_do_not_wait_for_each_other():
    index, inside = made(), threading.Barrier(2)

    def change(id: str) -> None:
        with index.snapshot():
            inside.wait(10)
            index.delete([id])

    with pytest.raises(InputError, match="Leave the snapshot first"):
        run(lambda: change("d1"), lambda: change("d2"))
    assert len({"d1", "d2"} & set(index.ids)) == 1


def test_a_copy_made_while_others_search_is_whole():
    index = made()
    expected = answer(index, QUERIES[0])

    def search():
        for _ in range(10):
            assert answer(index, QUERIES[0]) == expected

    def copied():
        for _ in range(5):
            assert answer(copy.deepcopy(index), QUERIES[0]) == expected

    run(*[search] * 4, *[copied] * 2)
