"""Slow, failing and lying servers: what is tried again, what is said, and what never leaks."""

import asyncio
import gzip
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest

from m3_retrievers import HybridRetriever
from m3_retrievers.encoder.remote.connection import Connection, connect
from m3_retrievers.encoder.remote.exchange import Request
from m3_retrievers.encoder.remote.vllm import VllmEncoder
from m3_retrievers.errors import EncoderAnswerError, EncoderUnavailableError
from model_servers import Weights, as_json, running, vllm

# the servers of these tests answer on loopback; no other host can be reached
pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
KEY = "a-key-that-nobody-may-see"


@pytest.fixture(scope="module")
def server():
    with running(lambda seen: {"path": seen.path}) as made:
        yield made


@pytest.fixture(autouse=True)
def honest(server):
    yield
    server.before, server.change, server.most_at_once = lambda _: None, lambda answer: answer, 0
    server.seen.clear()


@pytest.fixture
def transport(server, monkeypatch):
    made = open_to(server, monkeypatch)
    yield made
    made.close()


def open_to(server, monkeypatch, **options):
    monkeypatch.setattr("m3_retrievers.encoder.remote.transport._FIRST_WAIT", 0.01)
    connection = Connection(api_key=KEY, **{"timeout": 5, "retries": 2, **options})
    return connect(server.url, connection, purpose="A test")


def times(count, reply):
    """Reply so to the first requests, then as usual."""
    left = [count]

    def before(_):
        left[0] -= 1
        return reply if left[0] >= 0 else None

    return before


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_busy_server_is_asked_again(transport, server, status):
    server.before = times(2, as_json({"error": "queue full"}, status))
    assert transport.post("/x", {}, about="'page'").json() == {"path": "/x"}
    assert len(server.seen) == 3


def test_it_is_asked_again_after_the_time_it_names(transport, server):
    server.before = times(1, as_json({}, 503, **{"retry-after": "0.2"}))
    start = time.monotonic()
    transport.post("/x", {}, about="")
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize(
    "asked",
    ["3600", formatdate(time.time() + 3600, usegmt=True), "inf"],
    ids=["seconds", "date", "endless"],  # the same in every process that collects
)
def test_a_server_that_wants_an_hour_is_not_waited_for(transport, server, asked):
    server.before = lambda _: as_json({}, 503, **{"retry-after": asked})
    with pytest.raises(EncoderUnavailableError, match="status 503"):
        transport.post("/x", {}, about="")
    assert len(server.seen) == 1


def test_a_lost_connection_is_tried_again(transport, server):
    left = [1]

    def before(_):
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionError("the handler dies, and the connection with it")

    server.before = before
    assert transport.get("/x").json() == {"path": "/x"}


def test_nobody_there_is_an_error_that_names_the_address(monkeypatch):
    class Nobody:
        url = "http://user:secret@127.0.0.1:9"

    with pytest.raises(EncoderUnavailableError, match=r"http://127\.0\.0\.1:9/x.*'page'") as error:
        open_to(Nobody, monkeypatch, retries=0).post("/x", {}, about="'page'")
    assert isinstance(error.value, ConnectionError)
    assert "secret" not in str(error.value)
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    ("status", "told"),
    [(400, "Check"), (401, "api_key"), (404, "address"), (413, "batch_tokens"), (422, "Check")],
)
def test_a_refusal_is_final_and_says_why(transport, server, status, told):
    server.before = lambda _: as_json({"error": {"message": "too\x1b[31m long"}}, status)
    with pytest.raises(EncoderAnswerError, match=told) as error:
        transport.post("/x", {}, about="'page'")
    assert "long" in str(error.value)
    assert "\x1b" not in str(error.value)
    assert KEY not in str(error.value)
    assert len(server.seen) == 1


def test_a_failing_server_is_unavailable_and_not_asked_again(transport, server):
    server.before = lambda _: as_json({"detail": "boom"}, 500)
    with pytest.raises(EncoderUnavailableError, match=r"status 500 .*boom"):
        transport.post("/x", {}, about="")
    assert len(server.seen) == 1


def test_a_redirect_is_not_followed_with_the_key(transport, server):
    server.before = lambda seen: (
        (307, {"location": "/elsewhere"}, b"") if seen.path == "/x" else None
    )
    with pytest.raises(EncoderAnswerError, match="307"):
        transport.post("/x", {}, about="")
    assert [seen.path for seen in server.seen] == ["/x"]
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_said(transport, server, content):
    server.before = lambda _: (200, {}, content)
    with pytest.raises(EncoderAnswerError, match="JSON"):
        transport.post("/x", {}, about="").json()


def test_a_torn_or_huge_packed_answer_is_refused(transport, server, monkeypatch):
    server.before = lambda _: (200, {"content-encoding": "gzip"}, b"not packed")
    with pytest.raises(EncoderAnswerError, match="unpacked"):
        transport.post("/x", {}, about="")
    monkeypatch.setattr("m3_retrievers.encoder.remote.transport._LARGEST_ANSWER", 10_000)
    server.before = lambda _: (200, {"content-encoding": "gzip"}, gzip.compress(b"0" * 10**6))
    with pytest.raises(EncoderAnswerError, match="10,000 bytes"):
        transport.post("/x", {}, about="")


def test_a_slow_server_is_left_in_time_and_not_asked_twice(server, monkeypatch):
    release = threading.Event()
    server.before = lambda _: release.wait(5) and None
    start = time.monotonic()
    try:
        with pytest.raises(EncoderUnavailableError, match=r"within 0\.2 s"):
            open_to(server, monkeypatch, timeout=0.2).post("/x", {}, about="")
    finally:
        release.set()
    assert time.monotonic() - start < 3
    assert len(server.seen) == 1


def test_several_requests_are_under_way_up_to_the_bound(server, monkeypatch):
    transport = open_to(server, monkeypatch, in_flight=3)
    server.before = lambda _: time.sleep(0.03)
    asked = (Request(f"/{n}", {}) for n in range(9))
    found = dict(transport.post_all(asked))
    assert {place: answer.json()["path"] for place, answer in found.items()} == {
        n: f"/{n}" for n in range(9)
    }
    assert server.most_at_once == 3
    transport.close()


def test_a_request_under_way_ends_before_its_connection_is_closed(transport, server):
    began, release = threading.Event(), threading.Event()
    server.before = lambda _: began.set() or (release.wait(5) and None)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(transport.get, "/x")
        began.wait(5)
        client = transport._client.get()
        transport.close()
        assert not client._client.is_closed
        release.set()
        assert answer.result().json() == {"path": "/x"}
    assert client._client.is_closed


def test_the_first_error_ends_the_rest(server, monkeypatch):
    transport = open_to(server, monkeypatch, in_flight=2, retries=0)
    server.before = lambda seen: as_json({}, 500) if seen.path == "/1" else None
    with pytest.raises(EncoderUnavailableError):
        list(transport.post_all(Request(f"/{n}", {}) for n in range(500)))
    assert len(server.seen) < 100
    transport.close()


@pytest.fixture(scope="module")
def weights(tiny_m3):
    return Weights(tiny_m3)


def test_waiting_for_a_server_blocks_no_event_loop(weights, tiny_m3):
    ticks = []

    async def main(retriever):
        search = asyncio.create_task(retriever.asearch("page"))
        while not search.done():
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)
        return await search

    with running(vllm(weights, "embed")) as served:
        remote = VllmEncoder(served.url, tokenizer=tiny_m3, keep=None)
        retriever = HybridRetriever(remote, legs=("dense",))
        retriever.add(["the page"])
        served.before = lambda _: time.sleep(0.3)
        assert asyncio.run(main(retriever))
        remote.close()
    assert len(ticks) > 5


def test_a_dead_server_fails_all_waiting_queries_at_once(weights, tiny_m3):
    """Each of 16 would otherwise wait for its own time-out, one after the other."""
    with running(vllm(weights, "embed")) as served:
        connection = Connection(timeout=1.0, retries=0)
        remote = VllmEncoder(served.url, tokenizer=tiny_m3, connection=connection, keep=None)
        remote.encode_query("page")
        release = threading.Event()
        served.before = lambda _: release.wait(10) and None
        start = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(remote.encode_query, f"page {n}") for n in range(16)]
            errors = [one.exception() for one in asked]
        release.set()
        assert time.monotonic() - start < 8
        assert all(isinstance(error, EncoderUnavailableError) for error in errors)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_opens_connections_of_its_own(transport, server):
    transport.get("/before")
    client = transport._client.get()
    transport.renew_after_fork()  # what the child's hook calls
    assert transport._client.get() is not client
    client.release()
    assert transport.get("/after").json() == {"path": "/after"}
