"""Searches beside changes, copies, forks and many waiting callers."""

import asyncio
import copy
import os
import pickle
import sys
import threading

import pytest

from m3_retrievers import HybridRetriever, M3Encoder, ReciprocalRankFusion
from m3_retrievers.retrieval import threads
from sentences import SENTENCES

QUERY = "where does the river flow"
COUNT = 60


@pytest.fixture(scope="module")
def encoder(tiny_m3):
    return M3Encoder.from_pretrained(tiny_m3, device="cpu", truncation="windows")


def filled(encoder, **options):
    retriever = HybridRetriever(encoder, **options)
    texts = [f"{SENTENCES[n % len(SENTENCES)]} version {n}" for n in range(COUNT)]
    retriever.add(texts, ids=[f"d{n}" for n in range(COUNT)])
    return retriever


@pytest.mark.slow
@pytest.mark.parametrize("fusion", [None, ReciprocalRankFusion()], ids=["hybrid", "fusion"])
def test_a_search_beside_deletes_and_upserts_sees_one_state(encoder, fusion):
    retriever = filled(encoder, fusion=fusion)
    asked = retriever.prepare(QUERY)
    old = {record.id: record.text for record in retriever.get(retriever.index.ids)}
    new = {id: f"quite another text {id}" for id in old}
    score_of = {}
    for texts in (old, new):
        other = HybridRetriever(encoder)
        other.add(list(texts.values()), ids=list(texts))
        for hit in other.score(asked, list(texts)):
            score_of[hit.text] = hit.scores
    encoded = encoder.encode_documents(list(new.values()))
    records = [type(retriever.get(["d0"])[0])(id, text) for id, text in new.items()]
    stop, errors = threading.Event(), []

    def change():
        for row in [*range(COUNT)] * 20:
            if stop.is_set():
                return
            retriever.index.upsert([records[row]], encoded[row])
            retriever.delete([f"d{(row * 7) % COUNT}"])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns at every step
    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(150):
            hits = retriever.search(asked, k=10)
            errors += [
                (hit, mode)
                for hit in hits
                for mode, score in hit.scores.items()
                if mode not in ("hybrid", "fusion")
                and score != pytest.approx(score_of[hit.text][mode], abs=2e-3)
            ]
    finally:
        stop.set()
        writer.join()
        sys.setswitchinterval(before)
    assert not errors


def test_a_copy_and_a_pickle_are_retrievers_of_their_own(encoder):
    retriever = filled(encoder, legs=("dense", "sparse", "bm25"))
    hits = retriever.search(QUERY)
    for other in (copy.deepcopy(retriever), pickle.loads(pickle.dumps(retriever))):
        assert [hit.id for hit in other.search(QUERY)] == [hit.id for hit in hits]
        other.delete([hits[0].id])
        assert hits[0].id not in other.index
        assert hits[0].id in retriever.index


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_child_forked_while_others_search_does_not_hang(encoder):
    retriever = filled(encoder)
    asked = retriever.prepare(QUERY)
    expected = [hit.id for hit in retriever.search(asked)]
    inside, done = threading.Event(), threading.Event()

    def hold():
        with retriever.index.snapshot():
            inside.set()
            done.wait(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    child = os.fork()
    if not child:
        # no torch in the child: its own threads stayed with the parent
        found = retriever.index.recall(asked, "sparse", k=3).ids
        os._exit(0 if found and len(retriever.get(found)) == len(found) else 1)
    done.set()
    holder.join()
    waited, status = os.waitpid(child, 0)
    assert (waited, os.waitstatus_to_exitcode(status)) == (child, 0)
    assert [hit.id for hit in retriever.search(asked)] == expected


async def test_many_waiting_searches_leave_the_loops_own_threads_free(encoder):
    retriever = filled(encoder)
    release = threading.Event()
    search = retriever.search

    def slow(*args, **options):
        release.wait(120)
        return search(*args, **options)

    retriever.search = slow
    waiting = [asyncio.create_task(retriever.asearch(QUERY, k=1)) for _ in range(200)]
    await asyncio.sleep(0)
    # asyncio's executor has a few dozen threads; one of them answers at once
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), timeout=60) == 7
    running = [one for one in threading.enumerate() if one.name.startswith("m3-retrievers")]
    assert len(running) <= threads.THREADS
    release.set()
    assert len({hits[0].id for hits in await asyncio.gather(*waiting)}) == 1
