"""BM25 inside Qdrant, and HybridRetriever over a Qdrant index with every leg."""

import math

import numpy as np
import pytest
from scipy import sparse as sp

from m3_retrievers import BM25, HybridRetriever, HybridWeights, LocalIndex, QdrantIndex
from m3_retrievers.index.qdrant.terms import term_index
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.plan import Plan
from m3_retrievers.types.representations import Representations

pytestmark = pytest.mark.slow

pytest.importorskip("qdrant_edge")

TEXTS = [
    "red red fox",
    "blue fox",
    "the quick brown fox jumps over the lazy dog and the red hen",
    "hen",
    "",
    "big red dog",
]


def filled(index):
    index.add([Record(str(at), text, {"at": at}) for at, text in enumerate(TEXTS)], nothing())
    return index


def nothing():
    return Representations(sparse=sp.csr_array((len(TEXTS), 3), dtype=np.float32))


@pytest.fixture
def index(tmp_path):
    index = QdrantIndex(tmp_path, modes=(), weighting=BM25(), average_length=4)
    yield filled(index)
    index.close()


def by_hand(query, text, *, average=4, k1=1.5, b=0.75):
    """BM25 as Lucene writes it, in plain loops; the average length is fixed."""
    split = [text.split() for text in TEXTS]
    filled = [words for words in split if words]  # what has no term has no vector
    score = 0.0
    for word in query.split():
        holding = sum(word in words for words in filled)
        idf = math.log(1 + (len(filled) - holding + 0.5) / (holding + 0.5))
        count = text.split().count(word)
        norm = k1 * (1 - b + b * len(text.split()) / average)
        score += idf * count * (k1 + 1) / (count + norm) if count else 0
    return score


@pytest.mark.parametrize("query", ["red", "fox hen", "red red dog", "nothing of this", ""])
def test_bm25_s_scores_are_those_of_the_formula(index, query):
    expected = [by_hand(query, text) for text in TEXTS]
    asked = Query(query)
    scores = index.score(asked, "bm25", [str(at) for at in range(len(TEXTS))])
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    ranking = index.recall(asked, "bm25", k=None)
    best = sorted((at for at in range(len(TEXTS)) if expected[at]), key=lambda at: -expected[at])
    assert ranking.ids == tuple(map(str, best))


def test_bm25_enters_the_sum_as_its_share_of_what_the_query_could_reach(index):
    query = Query("red dog")
    idf = {word: math.log(1 + (5 - n + 0.5) / (n + 0.5)) for word, n in (("red", 3), ("dog", 2))}
    bound = sum(2.5 * value for value in idf.values())
    assert index.scale(query, "bm25") == pytest.approx(1 / bound, rel=1e-5)
    assert index.scale(Query("unknown"), "bm25") == 0
    plan = Plan(legs=("bm25",), weights=HybridWeights(0, 0.5, 0))
    hits = index.search(query, plan, k=2).hits
    expected = {str(at): by_hand("red dog", text) for at, text in enumerate(TEXTS)}
    assert [hit.id for hit in hits] == sorted(expected, key=expected.get)[:-3:-1]
    share = by_hand("red dog", TEXTS[5]) / bound
    assert hits[0].contributions["bm25"] == pytest.approx(0.5 * share, rel=1e-5)


def test_the_average_length_is_that_of_the_first_add(tmp_path):
    index = filled(QdrantIndex(tmp_path, modes=(), weighting=BM25()))
    average = sum(len(text.split()) for text in TEXTS) / len(TEXTS)
    index.upsert([Record("later", "sea " * 500)], nothing()[:1])
    expected = by_hand("hen", "hen", average=average)
    # six texts have terms by now
    idf = math.log(1 + (6 - 2 + 0.5) / 2.5) / math.log(1 + (5 - 2 + 0.5) / 2.5)
    assert index.score(Query("hen"), "bm25", ["3"])[0] == pytest.approx(expected * idf, rel=1e-5)
    index.close()


def test_bm25_orders_as_over_a_local_index_where_lengths_are_alike(tmp_path):
    """With the collection's own average length, and every text with terms, BM25 is the same."""
    rng = np.random.default_rng(0)
    words = [f"w{at}" for at in range(60)]
    texts = [" ".join(rng.choice(words, 12)) for _ in range(50)]
    made = Representations(sparse=sp.csr_array((50, 3), dtype=np.float32))
    index = QdrantIndex(tmp_path, modes=(), weighting=BM25())
    local = LocalIndex(modes=(), weighting=BM25())
    for one in (index, local):
        one.add([Record(str(at), text) for at, text in enumerate(texts)], made)
    for query in ("w1 w2 w3", "w7", "w9 w10 w11 w12 w13"):
        mine, other = (one.recall(Query(query), "bm25", k=10) for one in (index, local))
        assert mine.ids == other.ids
        np.testing.assert_allclose(mine.scores, other.scores, rtol=1e-5)
        assert index.scale(Query(query), "bm25") == pytest.approx(
            local.scale(Query(query), "bm25"), rel=1e-5
        )
    index.close()


def test_terms_get_places_by_their_digest():
    """By the BLAKE2b digest of the word, so that no vocabulary is shared: b2sum says the same."""
    assert term_index("fox") != term_index("Fox")
    assert all(0 <= term_index(word) < 2**32 for word in ("", "fox", "狐", "\ud800"))


@pytest.fixture
def texts():
    return [
        "The red fox jumps over the lazy dog.",
        "A blue whale swims in the deep sea.",
        "Foxes are small red animals of the forest.",
        "Ships cross the sea by night.",
        "The dog sleeps.",
    ]


@pytest.mark.parametrize(
    "legs", [("dense", "sparse"), ("dense", "bm25"), ("dense", "sparse", "bm25")]
)
def test_a_hybrid_retriever_answers_from_qdrant_as_from_memory(tiny_m3, tmp_path, texts, legs):
    bm25 = BM25() if "bm25" in legs else None
    index = QdrantIndex(tmp_path, weighting=bm25)
    own = HybridRetriever(tiny_m3, index=index, legs=legs)
    local = HybridRetriever(
        own.encoder, index=LocalIndex(weighting=BM25() if bm25 else None), legs=legs
    )
    for retriever in (own, local):
        retriever.add(texts, ids=list("abcde"), metadata=[{"n": at} for at in range(5)])
    for question in ("red fox", "the sea"):
        mine, other = (one.search(question, k=3) for one in (own, local))
        assert [hit.id for hit in mine] == [hit.id for hit in other]
        for hit, expected in zip(mine, other, strict=True):
            assert hit.scores == pytest.approx(expected.scores, abs=1e-3)
            assert hit.ranks == expected.ranks
            assert hit.contributions == pytest.approx(expected.contributions, abs=2e-3)
    assert [hit.id for hit in own.search("fox", filter={"n": {"$gte": 3}})] == [
        hit.id for hit in local.search("fox", filter={"n": {"$gte": 3}})
    ]
    assert own.delete(["a"]) == ["a"]
    assert len(own) == 4
    index.close()
