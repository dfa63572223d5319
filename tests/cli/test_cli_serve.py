"""``m3-retrievers serve``: what it starts, and what it refuses to."""

import pytest

from m3_retrievers import HybridRetriever, M3Encoder
from m3_retrievers.cli.serve import code_of


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
    assert served["retriever"] == []
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
    done = run("serve", tmp_path / "index", "--model", tiny_m3)
    assert done.code == 0
    assert "The playground is at http://127.0.0.1:8080" in done.message
    [one] = served["retriever"]
    assert one.name == str(tmp_path / "index")
    assert len(one.retriever) == 1


def test_it_says_where_an_index_was_made_in_another_precision(run, served, tiny_m3, tmp_path):
    retriever = HybridRetriever(M3Encoder.from_pretrained(tiny_m3, device="cpu", precision="bf16"))
    retriever.add(["the page"])
    retriever.save(tmp_path / "index")
    done = run("serve", tmp_path / "index", "--model", tiny_m3)
    assert "index, made in bf16, asked in f" in done.message
    asked = ("search", tmp_path / "index", "page", "--model", tiny_m3)
    assert "The index was made in bf16, asked in f" in run(*asked, "--explain").out
    assert "bf16" not in run(*asked).out


def test_it_serves_several_indexes_each_with_its_model(run, served, tiny_m3, other_m3, tmp_path):
    HybridRetriever(M3Encoder.from_pretrained(tiny_m3)).save(tmp_path / "a")
    HybridRetriever.open(tmp_path / "b.index", other_m3).add(["the page"])
    paths = [tmp_path / "a", tmp_path / "b.index"]
    done = run("serve", *paths, "--model", tiny_m3, "--model", other_m3)
    assert done.code == 0, done.err
    models = [one.retriever.encoder.name for one in served["retriever"]]
    assert models == [str(tiny_m3), str(other_m3)]
    assert served["encoder"] is served["retriever"][0].retriever.encoder
    for one in served["retriever"]:
        made = {}
        exec(one.code, made)
        assert len(made["retriever"]) == len(one.retriever)
        assert made["Recall"]
    refused = run("serve", paths[0], "--model", tiny_m3, "--model", other_m3)
    assert "one for all indexes, or one for each of 1" in refused.message


@pytest.mark.parametrize(
    ("address", "opened"),
    [
        ("qdrant:./data", "open(open_index('qdrant:./data', create=False), encoder)"),
        (
            "postgresql://me:secret@db.example/notes",
            "open(open_index('postgresql://db.example/notes', create=False), encoder)",
        ),
    ],
)
def test_code_that_opens_an_engine_s_index_holds_no_password(address, opened):
    code = code_of(address, "m3-mini")
    compile(code, "code", "exec")
    assert code.endswith(f"retriever = HybridRetriever.{opened}")
    assert "secret" not in code


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
