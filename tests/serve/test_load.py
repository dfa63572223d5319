"""The load of benchmarks/serve_load.py for a second: nothing fails, grows or differs."""

import asyncio
import importlib.util
import sys

import httpx
import pytest

import readme
from live_server import live
from m3_retrievers import M3Encoder
from m3_retrievers.serve import Limits, create_app
from sentences import SENTENCES

# the server of these tests answers on loopback; no other host can be reached
pytestmark = [pytest.mark.slow, pytest.mark.allow_hosts(["127.0.0.1"])]


@pytest.fixture
def script(monkeypatch):
    folder = readme.PATH.parent / "benchmarks"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location("serve_load", folder / "serve_load.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in {"serve_load", "common"} - before:
        sys.modules.pop(name, None)


def test_sixteen_clients_of_whom_a_fifth_leaves_are_answered_as_one_would_be(script, tiny_m3):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", keep=None)
    passages = [" ".join(SENTENCES[n : n + 1 + n % 5]) for n in range(8)]
    texts = script.Texts(encoder, list(SENTENCES[:8]), passages)
    app = create_app(encoder, limits=Limits(queue=64, max_texts=8))
    with live(app) as url:
        seen = asyncio.run(script.load(url, texts, clients=16, seconds=1.5, cancelled=0.2))
        metrics = httpx.get(f"{url}/metrics").text
    assert set(seen.statuses) == {"200"}
    assert len(seen.latencies) > 16
    assert seen.largest_difference < 1e-5
    assert "m3_retrievers_queue_texts 0\n" in metrics
    counts = app.state.m3.metrics.counts
    assert counts["batch_requests_total"] > 1.5 * counts["batches_total"]  # passes were shared
