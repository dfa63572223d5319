"""What goes to a server: one request a search, in shapes that the client's own models accept."""

import json

import numpy as np
import pytest

from m3_retrievers import BM25, HybridRetriever, HybridWeights, LocalIndex, QdrantIndex, Recall
from m3_retrievers.scoring.fusion import ReciprocalRankFusion
from m3_retrievers.testing.agreement import same_hits
from m3_retrievers.testing.samples import COUNT, question, records, represent
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.plan import Plan
from m3_retrievers.types.representations import Representations

pytest.importorskip("qdrant_client")

from qdrant_rest import RestQdrant

pytestmark = pytest.mark.slow

BOUNDS = {"dense": 1e-5, "sparse": 1e-5, "colbert": 1e-3, "hybrid": 2e-3, "fusion": 1e-5}


@pytest.fixture
def server():
    return RestQdrant()


@pytest.fixture
def index(server):
    index = QdrantIndex(server.client())
    index.add(dated(), represent(COUNT))
    server.seen.clear()
    server.bodies.clear()
    return index


@pytest.fixture(scope="module")
def exact():
    exact = LocalIndex(colbert_dtype="float32")
    exact.add(dated(), represent(COUNT))
    return exact


def dated():
    days = [f"2024-{1 + at % 4:02}-{1 + at % 28:02}" for at in range(COUNT)]
    return [
        Record(record.id, record.text, {**record.metadata, "day": day})
        for record, day in zip(records(COUNT), days, strict=True)
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"filter": {"even": True}},
        {"filter": {"number": {"$gte": 3, "$lt": 30}, "$not": {"tags": "tag1"}}},
        {"ids": ["d01", "d02", "d30"]},
        {"filter": {"day": {"$gte": "2024-02-01", "$lt": "2024-03"}}},
        {"filter": {"number": {"$in": []}}},
        {"filter": {"$or": [{"number": 2.0}, {"tags": {"$in": ["tag3"]}}]}, "ids": ["d02", "d03"]},
    ],
    ids=lambda options: " and ".join([*options.get("filter", {}), *options.get("ids", [])]),
)
def test_a_hybrid_search_is_one_request(index, server, exact, options):
    plan = Plan(recall=Recall(dense=9, lexical=7))
    found = index.search(question(), plan, k=5, **options)
    assert server.seen == ["POST /points/query/batch"]
    whole = exact.search(question(), plan, k=COUNT, **options)
    same_hits(found.hits, whole.hits, k=5, plan=plan, tolerances=BOUNDS)
    for leg, ranking in whole.rankings.items():
        assert found.rankings[leg].ids == ranking.ids


def test_the_request_holds_a_formula_over_prefetches_and_nothing_else_is_fetched(index, server):
    weights = HybridWeights(dense=0.5, sparse=0.25, colbert=2.0)
    index.search(question(), Plan(weights=weights), k=4, filter={"even": True})
    *legs, formula = json.loads(server.bodies[0])["searches"]
    assert [leg["using"] for leg in legs] == ["dense", "sparse", "colbert"]
    assert formula["limit"] == 4
    factors = [part["mult"] for part in formula["query"]["formula"]["sum"]]
    assert factors == [[0.5, "$score[0]"], [0.25, "$score[1]"], [2.0 / 3, "$score[2]"]]
    assert formula["query"]["defaults"] == {f"$score[{at}]": 0.0 for at in range(3)}
    for leg in (*legs, *formula["prefetch"]):
        assert [inner["using"] for inner in leg["prefetch"]] == ["dense", "sparse"]
        assert leg["limit"] == 200
        for inner in leg["prefetch"]:  # the filter stands before the best of each leg
            assert inner["filter"]["must"][0]["match"]["any"] == ['"even"=true']


def test_what_the_formula_finds_is_what_comes_first(index, server):
    """Its records are all that is needed: no document is fetched afterwards, nor too many."""
    hits = index.search(question(), Plan(), k=6).hits
    assert server.seen == ["POST /points/query/batch"]
    assert len(hits) == 6
    assert all(hit.text for hit in hits)


@pytest.mark.parametrize("operator", ["$text", "$itext"])
def test_what_qdrant_cannot_decide_costs_a_page_of_metadata(index, server, operator):
    texts = [Record(f"t{at}", "", {"name": name}) for at, name in enumerate(["Ada", "ada", "Bob"])]
    index.upsert(texts, represent(3))
    server.seen.clear()
    filter = {"name": {operator: "ad"}, "number": {"$exists": False}}
    hits = index.search(question(), Plan(), k=9, filter=filter).hits
    assert {hit.id for hit in hits} == ({"t1"} if operator == "$text" else {"t0", "t1"})
    assert server.seen == ["POST /points/scroll", "POST /points/scroll", "POST /points/query/batch"]
    page = json.loads(server.bodies[-3])
    assert page["with_payload"] == ["n", "metadata"]
    # the part that Qdrant can decide stands in the page's filter
    assert '"number\\"?' in json.dumps(page["filter"])


def test_a_fusion_goes_by_the_definition(index, server, exact):
    plan = Plan(fusion=ReciprocalRankFusion())
    found = index.search(question(), plan, k=5).hits
    expected = exact.search(question(), plan, k=COUNT).hits
    same_hits(found, expected, k=5, plan=plan, tolerances=BOUNDS)
    assert server.seen.count("POST /points/query/batch") == 2


def test_recalling_everything_asks_first_how_much_there_is(index, server, exact):
    plan = Plan(recall=Recall.everything())
    found = index.search(question(), plan, k=COUNT).hits
    assert server.seen == ["POST /points/count", "POST /points/query/batch"]
    expected = exact.search(question(), plan, k=COUNT).hits
    same_hits(found, expected, k=COUNT, plan=plan, tolerances=BOUNDS)


def test_the_collection_is_made_as_asked(server):
    index = QdrantIndex(server.client(), weighting=BM25())
    index.bind({"name": "m", "fingerprint": "f"}, extra={"a": 1})
    index.add(records(3), represent(3))
    made = [json.loads(body) for body in server.bodies if b"multivector_config" in body]
    assert len(made) == 1
    colbert = made[0]["vectors"]["colbert"]
    assert colbert["hnsw_config"] == {"m": 0}
    assert colbert["datatype"] == "float16"
    assert colbert["multivector_config"] == {"comparator": "max_sim"}
    assert made[0]["sparse_vectors"]["bm25"] == {"modifier": "idf"}
    indexed = [json.loads(body) for body in server.bodies if b"field_schema" in body]
    assert {one["field_name"]: one["field_schema"] for one in indexed} == {
        "n": "integer",
        "facts": "keyword",
        "numbers.number": "float",
    }
    assert index.bind({"name": "m", "fingerprint": "f"}) == {"a": 1}
    assert [one.name for one in server.local.get_collections().collections] == ["m3_retrievers"]


def test_a_large_call_goes_in_several_requests(server, monkeypatch):
    monkeypatch.setattr("m3_retrievers.index.qdrant.collection._NUMBERS_AT_ONCE", 200)
    index = QdrantIndex(server.client())
    index.add(records(COUNT), represent(COUNT))
    assert server.seen.count("PUT /points") > 5
    assert index.where(None) == [record.id for record in records(COUNT)]


def test_a_retriever_asks_for_a_batch_s_ids_at_once(tiny_m3, server):
    """Requests do not grow with the documents of a batch."""
    index = QdrantIndex(server.client())
    retriever = HybridRetriever(tiny_m3, index=index)
    retriever.add(["one", "two"], ids=["a", "b"])
    server.seen.clear()
    retriever.add([f"text {at}" for at in range(30)], batch_size=30)
    thirty = len(server.seen)
    server.seen.clear()
    retriever.add(["a text"])
    assert len(server.seen) == thirty < 8
    server.seen.clear()
    retriever.score("text", index.where(None))
    assert len(server.seen) < 15


def test_an_add_that_another_writer_overtook_takes_its_own_back(server, monkeypatch):
    """Between the look for known ids and the write, the other writer adds one of them."""
    index, other = QdrantIndex(server.client()), QdrantIndex(server.client())
    index.add(records(1), represent(1))
    other.add(records(3)[2:], represent(3)[2])
    monkeypatch.setattr(index, "_known", lambda ids: [])
    with pytest.raises(ValueError, match="another writer has just added"):
        index.add(records(5)[1:], represent(5, seed=3)[1:])
    assert index.where(None) == ["d00", "d02"]
    np.testing.assert_allclose(other.vectors(["d02"]).dense, represent(3).dense[2:], atol=1e-6)


def test_a_document_replaced_between_the_searches_is_asked_for_again(index, server):
    """The batch is no snapshot: what the legs scored and what came with the formula may differ."""
    real, changes = index._engine.query, [1, 2]

    def meanwhile(searches):
        answers = real(searches)
        if changes and len(searches) > 1:
            best = answers[-1][0].payload["id"]
            index.upsert([Record(best, f"new {changes.pop()}")], represent(1, seed=9))
            answers[-1] = real(searches)[-1]
        return answers

    index._engine.query = meanwhile
    hits = index.search(question(), Plan(), k=COUNT).hits
    assert changes == []
    own = {hit.id: hit for hit in index.search(question(), Plan(), k=COUNT).hits}
    for hit in hits:
        assert hit == own[hit.id]


def test_a_question_without_terms_asks_for_the_other_legs(index, server):
    asked = question().representations
    empty = represent(4).require("sparse")[3:4]
    query = Query("", Representations(dense=asked.dense, sparse=empty, colbert=asked.colbert))
    hits = index.search(query, Plan(), k=3).hits
    assert len(hits) == 3
    assert {hit.scores["sparse"] for hit in hits} == {0.0}
    lexical = Plan(legs=("sparse",), weights=HybridWeights(0, 1, 0))
    server.seen.clear()
    assert index.search(query, lexical, k=3).hits == []
    assert server.seen == []
