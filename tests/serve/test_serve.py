"""The server's routes: what its clients expect, what it refuses, who shares a pass."""

import asyncio
import base64
import json
import threading
import time

import numpy as np
import pytest

from live_server import client_of, live, posted
from m3_retrievers import HybridRetriever, M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.retrieval.reranking import rerank
from m3_retrievers.serve import Limits, create_app
from model_servers import Weights
from sentences import SENTENCES

pytestmark = pytest.mark.slow

TEXTS = list(SENTENCES[:4])
SMALL = Limits(max_texts=4, queue=8, max_characters=500, max_body=20_000)


@pytest.fixture(scope="module")
def retriever(tiny_m3):
    made = HybridRetriever(M3Encoder.from_pretrained(tiny_m3, device="cpu"))
    made.add(TEXTS, ids=list("abcd"), metadata=[{"n": n} for n in range(4)])
    return made


@pytest.fixture
async def client(encoder, retriever):
    async with client_of(create_app(encoder, retriever, limits=SMALL)) as made:
        yield made


async def test_openai_embeddings_in_floats_and_base64(client, encoder):
    expected = encoder.encode_documents(TEXTS).dense
    found = await posted(client, "/v1/embeddings", input=TEXTS, model="any")
    rows = [one["embedding"] for one in found["data"]]
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert [one["index"] for one in found["data"]] == [0, 1, 2, 3]
    assert found["usage"]["prompt_tokens"] == encoder.measure(TEXTS, query=False).sum()
    packed = await posted(client, "/v1/embeddings", input=TEXTS[0], encoding_format="base64")
    row = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(row, expected[0], atol=1e-6)
    cut = await posted(client, "/v1/embeddings", input=TEXTS[0], dimensions=8)
    shorter = expected[0, :8] / np.linalg.norm(expected[0, :8])
    np.testing.assert_allclose(cut["data"][0]["embedding"], shorter, atol=1e-6)


async def test_tei_routes_give_what_teis_clients_read(client, encoder, tiny_m3):
    expected = encoder.encode_documents(TEXTS)
    found = await posted(client, "/embed", inputs=TEXTS, truncate=True, normalize=True)
    np.testing.assert_allclose(found, expected.dense, atol=1e-6)
    rows = await posted(client, "/embed_sparse", inputs=TEXTS[0])
    assert {one["index"]: one["value"] for one in rows[0]} == pytest.approx(
        expected.to_dicts()[0], abs=1e-6
    )
    weights = Weights(tiny_m3)
    ids = weights.tokenizer(TEXTS[1]).input_ids
    for inputs in (TEXTS[1], [TEXTS[1]], [ids], ids):
        [states] = await posted(client, "/embed_all", inputs=inputs)
        np.testing.assert_allclose(states, weights.hidden(ids).numpy(), atol=1e-5)
    both = await posted(client, "/embed_all", inputs=[ids, TEXTS[0], TEXTS[1]])
    np.testing.assert_allclose(both[0], both[2], atol=1e-5)


async def test_search_explain_and_rerank_give_what_the_retriever_gives(client, retriever):
    asked = TEXTS[2]
    found = await posted(client, "/search", query=asked, k=2, filter={"n": {"$gte": 1}})
    hits = retriever.search(asked, k=2, filter={"n": {"$gte": 1}})
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in hits]
    assert found["hits"][0]["scores"] == pytest.approx(dict(hits[0].scores), abs=1e-5)
    assert found["hits"][0]["metadata"] == {"n": 2}
    dense = await posted(client, "/search", query=asked, weights={"dense": 1})
    assert dense["hits"][0]["score"] == pytest.approx(hits[0].scores["dense"], abs=1e-5)
    why = await posted(client, "/explain", query=asked, id="c")
    assert why["id"] == "c"
    assert why["terms"]["sparse"]
    ranked = await posted(client, "/rerank", query=asked, texts=TEXTS, return_text=True)
    expected = rerank(retriever.encoder, asked, TEXTS)
    assert [one["index"] for one in ranked] == [one.index for one in expected]
    assert ranked[0]["text"] == TEXTS[2]
    assert ranked[0]["score"] == pytest.approx(expected[0].score, abs=1e-5)


async def test_health_states_the_model_and_metrics_count(client, encoder):
    health = (await client.get("/health")).json()
    assert health["model"]["fingerprint"] == encoder.fingerprint
    assert health["index"]["documents"] == 4
    assert (await client.get("/v1/models")).json()["data"][0]["id"] == encoder.name
    await posted(client, "/embed", inputs="page")
    await client.post("/no/such/path")
    text = (await client.get("/metrics")).text
    assert 'm3_retrievers_requests_total{path="/embed",status="200"} 1\n' in text
    assert 'path="other",status="404"' in text
    assert "/no/such/path" not in text
    assert 'm3_retrievers_request_seconds_bucket{path="/embed",le="+Inf"} 1\n' in text
    assert "m3_retrievers_queue_texts 0\n" in text
    for line in text.splitlines():
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/v1/embeddings", {"input": []}, 400, "at least one text"),
        ("/v1/embeddings", {"input": [[1, 2]]}, 400, "check_embedding_ctx_length"),
        ("/v1/embeddings", {"input": [1, 2]}, 400, "token ids"),
        ("/v1/embeddings", {"input": ["a", None]}, 400, "list of strings"),
        ("/v1/embeddings", {}, 400, "list of strings"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, 400, "base64"),
        ("/v1/embeddings", {"input": "a", "dimensions": 33}, 400, "from 1 to 32"),
        ("/v1/embeddings", {"input": "a", "dimensions": True}, 400, "from 1 to 32"),
        ("/embed", {"inputs": ["a"] * 5}, 413, "at most 4 texts"),
        ("/embed", {"inputs": "a" * 501}, 413, "at most 500 characters"),
        ("/embed", {"inputs": "a", "normalize": False}, 400, "length 1"),
        ("/embed", {"inputs": "a", "truncate": "yes"}, 400, "true or false"),
        ("/embed_all", {"inputs": [[]]}, 400, "token ids"),
        ("/embed_all", {"inputs": [[10**9]]}, 400, "token ids"),
        ("/embed_all", {"inputs": [[1]] * 5}, 413, "at most 4"),
        ("/embed_all", {"inputs": [["a"]]}, 400, "token ids"),
        ("/encode", {"texts": "a", "outputs": ["vectors"]}, 400, "outputs"),
        ("/encode", {"texts": "a", "dtype": "float64"}, 400, "float16"),
        ("/encode", {"texts": "a", "role": "both"}, 400, "query"),
        ("/terms", {"ids": [-1]}, 400, "integers from 0"),
        ("/view", {"text": None}, 400, "string"),
        ("/search", {"query": "a", "k": 0}, 400, "from 1 to 1000"),
        ("/search", {"query": "a", "filter": []}, 400, "object"),
        ("/search", {"query": "a", "filter": {"n": {"$near": 1}}}, 400, "near"),
        ("/search", {"query": "a", "weights": {"dense": "x"}}, 400, "weights|dense"),
        ("/search", {"query": "a", "weights": {}}, 400, "weight"),
        ("/explain", {"query": "a", "id": "nobody"}, 400, "nobody"),
        ("/rerank", {"query": "a", "texts": None}, 400, "list of strings"),
    ],
)
async def test_a_bad_request_is_told_what_was_expected(client, path, body, status, told):
    found = await posted(client, path, status, **body)
    message = found["error"]["message"] if path.startswith("/v1/") else found["error"]
    assert any(word in message for word in told.split("|")), message
    assert "Traceback" not in message


async def test_what_is_no_json_or_too_much_of_it_is_refused(client):
    headers = {"content-type": "application/json"}
    for content in (b"{", b"[]", b"\xff\xfe", b"[" * 15_000, b""):
        answer = await client.post("/embed", content=content, headers=headers)
        assert answer.status_code == 400, content
        assert "JSON object" in answer.json()["error"]
    answer = await client.post("/embed", content=b" " * 20_001, headers=headers)
    assert answer.status_code == 413
    plain = await client.post(
        "/embed", content=b'{"inputs": "a"}', headers={"content-type": "text/plain"}
    )
    assert plain.status_code == 415  # what a page in a browser could send unasked
    assert (await client.get("/embed")).status_code == 405


async def test_a_server_without_an_index_says_so(encoder):
    async with client_of(create_app(encoder)) as client:
        assert "index" in (await posted(client, "/search", 404, query="a"))["error"]


async def test_a_text_that_must_not_be_cut_is_refused(tiny_m3):
    short = M3Encoder.from_pretrained(tiny_m3, device="cpu", document_max_length=8)
    async with client_of(create_app(short)) as client:
        long = " ".join(TEXTS)
        assert "cut" in (await posted(client, "/embed", 413, inputs=long, truncate=False))["error"]
        assert len(await posted(client, "/embed", inputs=long)) == 1


async def test_only_the_key_opens_the_server(encoder):
    app = create_app(encoder, api_key="right")
    async with client_of(app) as client:
        for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic right"}):
            answer = await client.post("/embed", json={"inputs": "a"}, headers=given)
            assert answer.status_code == 401
            assert "right" not in answer.text
            assert (await client.get("/metrics", headers=given)).status_code == 401
            assert (await client.get("/health", headers=given)).json() == {"status": "ok"}
        right = {"authorization": "Bearer right"}
        assert (await client.post("/embed", json={"inputs": "a"}, headers=right)).status_code == 200
        assert "model" in (await client.get("/health", headers=right)).json()
    with pytest.raises(InputError, match="empty"):
        create_app(encoder, api_key="")


async def test_a_page_that_points_its_name_here_is_turned_away(encoder):
    app = create_app(encoder, hosts=("localhost", "127.0.0.1", "[::1]"))
    async with client_of(app) as client:
        for host, status in (("evil.example", 421), ("localhost:8080", 200), ("[::1]:80", 200)):
            answer = await client.post("/embed", json={"inputs": "a"}, headers={"host": host})
            assert answer.status_code == status


class Held:
    """An encoder that waits for leave before each call, and notes what it was given."""

    def __init__(self, encoder):
        self._encoder = encoder
        self.leave = threading.Event()
        self.leave.set()
        self.calls = []
        self.fails = None

    def __getattr__(self, name):
        return getattr(self._encoder, name)

    def encode_documents(self, texts, *, outputs=None, show_progress=False):
        self.leave.wait(10)
        self.calls.append(list(texts))
        if self.fails is not None and self.fails in texts:
            raise RuntimeError("the model broke on this one")
        return self._encoder.encode_documents(texts, outputs=outputs)


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


@pytest.fixture
async def held(encoder):
    model = Held(encoder)
    app = create_app(model, limits=Limits(max_texts=4, queue=6, batch_tokens=60))
    async with client_of(app) as client:
        model.calls.clear()
        yield model, client, app.state.m3
        model.leave.set()


def ask(client, *texts):
    return asyncio.create_task(client.post("/embed", json={"inputs": list(texts)}))


async def test_requests_that_wait_together_share_a_pass_with_their_like(held, encoder):
    model, client, state = held
    model.leave.clear()
    first = ask(client, "first")
    await until(lambda: state.metrics.queue_texts == 0 and not first.done())
    await asyncio.sleep(0.05)
    long = " ".join(["page"] * 40)
    waiting = []
    for texts, queued in ((["a page"], 1), ([long], 2), (["the page", "a river"], 4)):
        waiting.append(ask(client, *texts))
        await until(lambda queued=queued: state.metrics.queue_texts == queued)
    model.leave.set()
    rows = [(await one).json() for one in waiting]
    assert [sorted(call) for call in model.calls] == [
        ["first"], ["a page", "a river", "the page"], [long]
    ]  # fmt: skip
    expected = encoder.encode_documents(["a page", long, "the page", "a river"]).dense
    np.testing.assert_allclose(np.concatenate(rows), expected, atol=1e-5)
    await first


async def test_beyond_the_queue_a_request_is_told_when_to_come_again(held):
    model, client, state = held
    model.leave.clear()
    first = ask(client, "first")
    await asyncio.sleep(0.1)
    waiting = [ask(client, *"abcd"), ask(client, *"ef")]
    await until(lambda: state.metrics.queue_texts == 6)
    refused = await ask(client, "g")
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert refused.json()["error_type"] == "Overloaded"
    model.leave.set()
    assert [(await one).status_code for one in (first, *waiting)] == [200] * 3
    assert (await ask(client, "g")).status_code == 200
    assert state.metrics.counts["refused_total"] == 1


async def test_one_requests_error_is_not_its_neighbours(held):
    model, client, _ = held
    model.leave.clear()
    model.fails = "broken"
    first = ask(client, "first")
    await asyncio.sleep(0.1)
    waiting = [ask(client, "page"), ask(client, "broken"), ask(client, "river")]
    await asyncio.sleep(0.1)
    model.leave.set()
    answers = [await one for one in (first, *waiting)]
    assert [one.status_code for one in answers] == [200, 200, 500, 200]
    assert "the model broke" not in answers[2].text
    assert (await ask(client, "page")).status_code == 200


async def test_a_client_that_leaves_frees_its_places(held):
    model, client, state = held
    app = client._transport.app
    model.leave.clear()
    gone = asyncio.Event()

    async def one_that_leaves(text):
        body = json.dumps({"inputs": [text]}).encode()
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive():
            for message in messages:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        scope = {
            "type": "http", "method": "POST", "path": "/embed", "raw_path": b"/embed",
            "query_string": b"", "root_path": "", "scheme": "http", "server": ("localhost", 80),
            "client": ("localhost", 1), "http_version": "1.1",
            "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
        }  # fmt: skip
        await app(scope, receive, send)

    first = ask(client, "first")
    await asyncio.sleep(0.1)
    leaving = [asyncio.create_task(one_that_leaves(f"text {n}")) for n in range(3)]
    await until(lambda: state.metrics.queue_texts == 3)
    gone.set()
    await asyncio.wait_for(asyncio.gather(*leaving), 5)
    assert state.metrics.queue_texts == 0
    assert state.metrics.counts["cancelled_total"] == 3
    model.leave.set()
    await first
    await asyncio.sleep(0.05)
    assert model.calls == [["first"]]  # the others were never encoded


async def test_an_answer_that_takes_too_long_is_given_up(encoder):
    model = Held(encoder)
    app = create_app(model, limits=Limits(timeout=0.2))
    async with client_of(app) as client:
        model.leave.clear()
        answers = await asyncio.gather(ask(client, "a"), ask(client, "b"))
        assert [one.status_code for one in answers] == [504, 504]
        assert app.state.m3.metrics.queue_texts == 0
        model.leave.set()
        assert (await ask(client, "c")).status_code == 200


async def test_a_request_that_never_ends_is_given_up_and_one_that_breaks_off_is_no_failure(encoder):
    app = create_app(encoder, limits=Limits(timeout=0.1))

    async def asked(*messages):
        """Return the status of a request of which these messages come, and then none."""
        left, statuses = list(messages), []

        async def receive():
            if not left:
                await asyncio.sleep(10)
            return left.pop(0)

        async def send(message):
            statuses.append(message.get("status"))

        headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": "/embed", "headers": headers}
        await app({**scope, "query_string": b"", "server": ("localhost", 80)}, receive, send)
        return statuses[0]

    async with app.router.lifespan_context(app):
        part = {"type": "http.request", "body": b'{"inputs": ', "more_body": True}
        assert await asked(part) == 408
        assert await asked(part, {"type": "http.disconnect"}) == 499


async def test_while_the_model_works_the_server_answers(held):
    model, client, _ = held
    model.leave.clear()
    waiting = ask(client, "a page")
    start = time.monotonic()
    assert (await client.get("/health")).status_code == 200
    assert time.monotonic() - start < 1
    model.leave.set()
    await waiting


async def test_who_still_waits_at_the_end_is_told(encoder):
    model = Held(encoder)
    app = create_app(model)
    async with client_of(app) as client:
        model.leave.clear()
        waiting = [ask(client, "a"), ask(client, "page of a river")]
        await asyncio.sleep(0.1)
        threading.Timer(0.2, model.leave.set).start()
        await app.state.m3.stop()
        assert 503 in [(await one).status_code for one in waiting]
        await app.state.m3.start()


@pytest.mark.slow
@pytest.mark.allow_hosts(["127.0.0.1"])  # OpenAI's client asks a server on loopback
def test_openais_own_client_understands_the_server(encoder):
    openai = pytest.importorskip("openai")
    with (
        live(create_app(encoder, api_key="key")) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0) as client,
    ):
        expected = encoder.encode_documents(TEXTS).dense
        found = client.embeddings.create(input=TEXTS, model="bge-m3")  # asks for base64
        np.testing.assert_allclose([one.embedding for one in found.data], expected, atol=1e-6)
        assert found.usage.total_tokens > 0
        floats = client.embeddings.create(input=TEXTS[0], model="m", encoding_format="float")
        np.testing.assert_allclose(floats.data[0].embedding, expected[0], atol=1e-6)
        assert client.models.list().data[0].id == encoder.name
        with pytest.raises(openai.BadRequestError, match="at least one text"):
            client.embeddings.create(input=[], model="m")
        other = openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError), other:
            other.embeddings.create(input="a", model="m")


@pytest.mark.parametrize("option", [{"queue": 0}, {"timeout": 0}, {"max_texts": 9, "queue": 8}])
def test_limits_that_cannot_be_meant_are_refused(option):
    with pytest.raises(InputError):
        Limits(**option)
