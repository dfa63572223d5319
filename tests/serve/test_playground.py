"""What the server's page is made of: its routes, several indexes, who may ask."""

import pytest

from live_server import client_of, posted
from m3_retrievers import HybridRetriever, M3Encoder, Recall, ReciprocalRankFusion
from m3_retrievers.errors import InputError
from m3_retrievers.serve import Limits, Served, create_app
from sentences import SENTENCES

pytestmark = pytest.mark.slow

TEXTS = list(SENTENCES[:6])


@pytest.fixture(scope="module")
def served(tiny_m3, other_m3):
    """Two indexes of the same texts, each by a model of its own."""
    found = []
    for name, model in (("first", tiny_m3), ("second", other_m3)):
        made = HybridRetriever(M3Encoder.from_pretrained(model, device="cpu"))
        made.add(TEXTS, ids=list("abcdef"), metadata=[{"n": n} for n in range(6)])
        found.append(Served(name, made, "retriever = None"))
    return found


@pytest.fixture
async def client(served):
    app = create_app(served[0].retriever.encoder, served, limits=Limits(max_texts=4, queue=8))
    async with client_of(app) as made:
        yield made


async def test_the_page_is_open_and_what_it_asks_is_not(served):
    app = create_app(served[0].retriever.encoder, served, api_key="right")
    async with client_of(app) as client:
        answer = await client.get("/")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "first" not in answer.text.partition("<script")[0]  # nothing of an index is in it
        assert (await client.get("/indexes")).status_code == 401
        key = {"authorization": "Bearer right"}
        assert len((await client.get("/indexes", headers=key)).json()["indexes"]) == 2


async def test_indexes_are_described_in_their_order(client, served):
    found = (await client.get("/indexes")).json()["indexes"]
    assert [one["name"] for one in found] == ["first", "second"]
    for one, index in zip(found, served, strict=True):
        assert one["model"] == index.retriever.encoder.name
        assert one["documents"] == 6
        assert one["weighted"] == ["dense", "sparse", "colbert"]
        assert one["recall"] == {"dense": 100, "lexical": 100}
        assert one["code"] == "retriever = None"


async def test_a_request_names_the_index_it_means(client, served):
    for index in served:
        found = await posted(client, "/search", query=TEXTS[2], k=3, index=index.name)
        hits = index.retriever.search(TEXTS[2], k=3)
        assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in hits]
        assert found["hits"][0]["score"] == pytest.approx(hits[0].score, abs=1e-5)
        why = await posted(client, "/explain", query=TEXTS[2], id="c", index=index.name)
        assert why["scores"]["dense"] == pytest.approx(hits[0].scores["dense"], abs=1e-5)
    first = await posted(client, "/search", query=TEXTS[2], k=3)
    assert first == await posted(client, "/search", query=TEXTS[2], k=3, index="first")
    for name, told in (("third", "one of ['first', 'second']"), (3, "a name")):
        assert told in (await posted(client, "/search", 400, query="a", index=name))["error"]
    assert "m3_retrievers_queue_texts 0\n" in (await client.get("/metrics")).text


async def test_candidates_come_with_every_mode_s_part(client, served):
    body = {"query": TEXTS[1], "candidates": True, "recall": {"dense": 2, "lexical": 2}}
    found = (await posted(client, "/search", **body))["candidates"]
    retriever = served[0].retriever
    assert [one["id"] for one in found] == sorted(one["id"] for one in found)
    assert len(found) <= 4
    for one in found:
        [hit] = retriever.score(TEXTS[1], [one["id"]])
        assert set(one["parts"]) == {"dense", "sparse", "colbert"}
        score = sum(retriever.weights.of(mode) * part for mode, part in one["parts"].items())
        assert score == pytest.approx(hit.score, abs=1e-5)
    filtered = await posted(client, "/search", **body, filter={"n": 3})
    assert [one["id"] for one in filtered["candidates"]] == ["d"]


async def test_depths_are_bounded_by_the_retriever_s_own_or_by_a_thousand(client, served):
    for recall, told in (
        ({"dense": 0}, "from 1 to 1000"),
        ({"lexical": 1001}, "from 1 to 1000"),
        ({"dense": None}, "from 1 to 1000"),
        ({"dense": True}, "from 1 to 1000"),
        ({"bm25": 5}, "depths of"),
        ([5], "depths of"),
    ):
        assert told in (await posted(client, "/search", 400, query="a", recall=recall))["error"]
    found = await posted(client, "/search", query=TEXTS[0], recall={"dense": 1, "lexical": 1}, k=9)
    assert len(found["hits"]) <= 2
    encoder = served[0].retriever.encoder
    deep = HybridRetriever(encoder, recall=Recall.everything(), fusion=ReciprocalRankFusion())
    deep.add(TEXTS)
    async with client_of(create_app(encoder, deep)) as other:
        body = {"query": "a", "candidates": True, "recall": {"dense": None, "lexical": 1}}
        assert len((await posted(other, "/search", **body))["candidates"]) == 6
        assert (await other.get("/indexes")).json()["indexes"][0]["fused"]


async def test_an_explanation_for_the_page_has_pieces_and_the_whole_alignment(client):
    found = await posted(client, "/explain", query=TEXTS[0], id="a", form="page")
    assert "".join(piece["text"] for piece in found["document"]) == TEXTS[0]
    assert len(found["heat_map"]["similarities"]) == len(found["heat_map"]["rows"])
    assert "form" in (await posted(client, "/explain", 400, query="a", id="a", form="x"))["error"]


async def test_a_server_of_a_model_alone_has_a_page_and_no_index(encoder):
    async with client_of(create_app(encoder)) as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/indexes")).json() == {"indexes": []}


def test_two_indexes_of_one_name_are_refused(served):
    with pytest.raises(InputError, match="another name for each"):
        create_app(served[0].retriever.encoder, [served[0], served[0]])
