"""``m3-retrievers serve``: what it starts, and what it refuses to."""

import pytest

from m3_retrievers import HybridRetriever, M3Encoder


@pytest.fixture
def served(monkeypatch):
    """What the server would be started with."""
    found = {}

    def run(encoder, retriever=None, **options):
        found.update(encoder=encoder, retriever=retriever, **options)

    monkeypatch.setattr("m3_retrievers.serve.running.run", run)
    return found


def test_it_serves_a_model_on_this_machine_alone(run, served, tiny_m3):
    done = run("serve", "--model", tiny_m3, "--queue", 9, "--max-batch-tokens", 64)
    assert done.code == 0, done.err
    assert served["encoder"].name == str(tiny_m3)
    assert served["retriever"] is None
    assert (served["host"], served["port"], served["api_key"]) == ("127.0.0.1", 8080, None)
    assert (served["limits"].queue, served["limits"].batch_tokens) == (9, 64)
    assert "http://127.0.0.1:8080" in done.message


def test_it_serves_an_index_with_its_model(run, served, tiny_m3, tmp_path):
    retriever = HybridRetriever(M3Encoder.from_pretrained(tiny_m3))
    retriever.add(["the page"])
    retriever.save(tmp_path / "index")
    refused = run("serve", tmp_path / "index")
    assert refused.code == 1
    assert "a serve loads, or downloads, no model" in refused.message
    assert "m3-retrievers serve" in refused.message
    assert run("serve", tmp_path / "index", "--model", tiny_m3).code == 0
    assert len(served["retriever"]) == 1


def test_an_open_address_without_a_key_is_pointed_out(run, served, tiny_m3, monkeypatch):
    assert "--api-key" in run("serve", "--model", tiny_m3, "--host", "0.0.0.0").message
    monkeypatch.setenv("M3_RETRIEVERS_API_KEY", "from-the-environment")
    done = run("serve", "--model", tiny_m3, "--host", "0.0.0.0")
    assert "--api-key" not in done.message
    assert "from-the-environment" not in done.message + run("serve", "--help").out
    assert served["api_key"] == "from-the-environment"


def test_bounds_that_cannot_be_meant_are_refused(run, served, tiny_m3):
    assert "queue expects" in run("serve", "--model", tiny_m3, "--queue", 0).message
    assert served == {}
