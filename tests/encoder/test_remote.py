"""vLLM and text-embeddings-inference as encoders, against servers that answer in their shapes."""

import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch

from m3_retrievers import HybridRetriever
from m3_retrievers.encoder.remote.connection import Connection
from m3_retrievers.encoder.remote.tei import TeiEncoder
from m3_retrievers.encoder.remote.vllm import VllmEncoder
from m3_retrievers.errors import (
    CheckpointError,
    EncoderAnswerError,
    InputError,
    TextTooLongError,
    TruncationWarning,
    UnknownTokenWarning,
)
from m3_retrievers.explain import explain
from m3_retrievers.scoring import maxsim
from m3_retrievers.testing import EncoderContract
from model_servers import Weights, running, tei, vllm
from sentences import SENTENCES

# the models' servers of these tests answer on loopback; no other host can be reached
pytestmark = [
    pytest.mark.slow,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.filterwarnings("ignore::m3_retrievers.errors.UnknownTokenWarning"),
]
TASKS = {"dense": "embed", "sparse": "token_classify", "colbert": "token_embed"}
TEXTS = [*SENTENCES[:8], "", "page page page", "\ud800 half a pair"]


@pytest.fixture(scope="module")
def weights(tiny_m3):
    return Weights(tiny_m3)


@pytest.fixture(scope="module")
def half(tiny_m3):
    return Weights(tiny_m3, torch.float16)


@pytest.fixture(scope="module")
def vllm_servers(weights):
    with (
        running(vllm(weights, "embed")) as dense,
        running(vllm(weights, "token_classify")) as sparse,
        running(vllm(weights, "token_embed")) as colbert,
    ):
        yield {"dense": dense, "sparse": sparse, "colbert": colbert}


@pytest.fixture(scope="module")
def tei_server(weights):
    with running(tei(weights)) as server:
        yield server


@pytest.fixture(autouse=True)
def honest(request):
    """Servers of the module are as they were, after each test."""
    yield
    for name in ("tei_server", "vllm_servers"):
        if name in request.fixturenames:
            found = request.getfixturevalue(name)
            for server in found.values() if isinstance(found, dict) else [found]:
                server.before, server.change = lambda _: None, lambda answer: answer
                server.seen.clear()


@pytest.fixture
def from_vllm(vllm_servers, tiny_m3):
    urls = {output: server.url for output, server in vllm_servers.items()}
    made = VllmEncoder(urls, tokenizer=tiny_m3, keep=None)
    yield made
    made.close()


@pytest.fixture
def from_tei(tei_server, tiny_m3):
    made = TeiEncoder(tei_server.url, heads=tiny_m3, keep=None)
    yield made
    made.close()


class TestVllmEncoder(EncoderContract):
    @pytest.fixture
    def encoder(self, from_vllm):
        return from_vllm


class TestTeiEncoder(EncoderContract):
    @pytest.fixture
    def encoder(self, from_tei):
        return from_tei


@pytest.mark.parametrize("role", ["encode_queries", "encode_documents"])
def test_tei_gives_what_the_local_model_gives(from_tei, encoder, role):
    found, expected = getattr(from_tei, role)(TEXTS), getattr(encoder, role)(TEXTS)
    same(found, expected, 1e-5)
    np.testing.assert_array_equal(found.colbert.offsets, expected.colbert.offsets)
    np.testing.assert_allclose(found.colbert.vectors, expected.colbert.vectors, atol=1e-5)


def test_vllm_gives_the_local_models_vectors_but_for_that_of_eos(from_vllm, encoder):
    found, expected = from_vllm.encode_documents(TEXTS), encoder.encode_documents(TEXTS)
    same(found, expected, 1e-5)
    for ours, theirs in zip(found.colbert, expected.colbert, strict=True):
        np.testing.assert_allclose(ours, theirs[:-1], atol=1e-5)


def test_how_much_the_missing_eos_moves_a_colbert_score(from_vllm, encoder):
    """0.018 on average, 0.056 at most with these random weights; 0.0024 and 0.011 with m3-mini."""
    texts = list(SENTENCES[:8])
    there, here = from_vllm.encode_documents(texts).colbert, encoder.encode_documents(texts).colbert
    moved = np.abs(maxsim(there, there) - maxsim(here, here))
    off_diagonal = moved[~np.eye(len(texts), dtype=bool)]
    assert np.diag(moved).max() < 1e-5  # a text finds itself either way
    assert 5e-3 < off_diagonal.mean() < 0.05


@pytest.mark.parametrize("kind", ["tei", "vllm"])
def test_servers_in_half_precision_agree_within_a_thousandth(half, encoder, tiny_m3, kind):
    texts = list(SENTENCES[:4])
    expected = encoder.encode_documents(texts)
    if kind == "tei":
        with running(tei(half)) as server:
            found = TeiEncoder(server.url, heads=tiny_m3).encode_documents(texts)
        np.testing.assert_allclose(found.colbert.vectors, expected.colbert.vectors, atol=2e-3)
    else:
        with running(vllm(half, "embed")) as server:
            found = VllmEncoder(server.url, tokenizer=tiny_m3).encode_documents(texts)
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-3)


def same(found, expected, within):
    np.testing.assert_allclose(found.dense, expected.dense, atol=within)
    assert found.sparse.shape == expected.sparse.shape
    assert abs(found.sparse - expected.sparse).max() <= within


def test_token_ids_are_sent_and_the_text_only_where_ids_would_not_survive(
    from_tei, tei_server, weights
):
    backend = weights.tokenizer.backend_tokenizer
    odd = "page<unk>page"  # becomes other tokens when it was ids in between
    ids = backend.encode(odd).ids
    again = backend.encode(backend.decode(ids, skip_special_tokens=False), add_special_tokens=False)
    from_tei.encode_documents(["the page", odd])
    [sent] = [seen.body["inputs"] for seen in tei_server.seen if seen.path == "/embed_all"]
    assert backend.encode("the page").ids in sent
    assert (odd in sent) == (again.ids != ids)


def test_a_cut_text_is_sent_as_its_beginning_and_reported_here(tei_server, tiny_m3, encoder):
    short = TeiEncoder(tei_server.url, heads=tiny_m3, document_max_length=8, keep=None)
    long = " ".join(SENTENCES[:3])
    with pytest.warns(TruncationWarning, match="1 of 1 texts were cut to 6 tokens"):
        found = short.encode_documents([long])
    assert found.colbert.lengths.tolist() == [7]
    refusing = TeiEncoder(tei_server.url, heads=tiny_m3, document_max_length=8, truncation="error")
    with pytest.raises(TextTooLongError, match="at most 6 tokens"):
        refusing.encode_documents([long])
    windows = TeiEncoder(tei_server.url, heads=tiny_m3, document_max_length=8, truncation="windows")
    assert windows.encode_documents([long]).colbert.lengths[0] > 20


def test_unknown_words_are_reported_here(from_vllm):
    with pytest.warns(UnknownTokenWarning):
        assert not from_vllm.encode_documents(["ꙮꙮꙮ"]).dense.any()


def test_equal_texts_go_out_once_and_kept_ones_not_again(tei_server, tiny_m3):
    keeping = TeiEncoder(tei_server.url, heads=tiny_m3)
    keeping.encode_documents(["page", "page", "river"], outputs=("dense",))
    [first] = [len(s.body["inputs"]) for s in tei_server.seen if s.path == "/embed_all"]
    keeping.encode_documents(["river"], outputs=("sparse",))
    asked = [s for s in tei_server.seen if s.path == "/embed_all"]
    assert (first, len(asked)) == (2, 1)


def test_requests_keep_to_the_servers_and_the_callers_bounds(weights, tiny_m3):
    texts = [f"page {n}" for n in range(9)]
    with running(tei(weights, most=2)) as server:
        TeiEncoder(server.url, heads=tiny_m3).encode_documents(texts)
        sizes = [len(s.body["inputs"]) for s in server.seen if s.path == "/embed_all"]
        assert sorted(sizes) == [1, 2, 2, 2, 2]
    with running(tei(weights)) as server:
        budget = Connection(batch_tokens=12, in_flight=2)
        TeiEncoder(server.url, heads=tiny_m3, connection=budget).encode_documents(texts)
        assert server.most_at_once <= 2
        longest = max(len(i) for s in server.seen if s.body for i in s.body["inputs"])
        for one in (s.body["inputs"] for s in server.seen if s.body):
            assert len(one) == 1 or len(one) * max(map(len, one)) <= 12 <= 12 + longest


LIES = {
    "fewer rows": lambda a: a[:-1],
    "fewer tokens": lambda a: [one[:-1] for one in a],
    "a wrong width": lambda a: [[token[:-1] for token in one] for one in a],
    "ragged rows": lambda a: [[token[: 1 + n] for n, token in enumerate(one)] for one in a],
    "NaN": lambda a: [[[float("nan")] * len(token) for token in one] for one in a],
    "text": lambda a: [[["1.0"] * len(token) for token in one] for one in a],
    "nothing": lambda a: None,
    "an object": lambda a: {"error": "no"},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_tei_is_an_error_that_names_server_and_text(from_tei, tei_server, lie):
    from_tei.encode_documents(["page"])
    tei_server.change = LIES[lie]
    with pytest.raises(EncoderAnswerError, match=r"127\.0\.0\.1:\d+/embed_all.*'river page'"):
        from_tei.encode_documents(["river page"])


@pytest.mark.parametrize("output", ["dense", "sparse", "colbert"])
@pytest.mark.parametrize(
    "lie",
    [
        lambda data: data[:-1],
        lambda data: [{**one, "index": 0} for one in data],
        lambda data: [{**one, "index": []} for one in data],
        lambda data: [{key: one[key] for key in ("object", "index")} for one in data],
        lambda data: [{**one, "data": [], "embedding": []} for one in data],
        lambda data: [{**one, "data": [[9.0, 9]], "embedding": [1.0]} for one in data],
        lambda data: [{**one, "data": ["x"], "embedding": ["x"]} for one in data],
        lambda data: [{**one, "data": None, "embedding": None} for one in data],
    ],
)
def test_a_lying_vllm_is_an_error(from_vllm, vllm_servers, output, lie):
    from_vllm.encode_documents(["page"])
    vllm_servers[output].change = lambda answer: {**answer, "data": lie(answer["data"])}
    with pytest.raises(EncoderAnswerError, match=r"127\.0\.0\.1:\d+.*2 texts, the first"):
        from_vllm.encode_documents(["river page", "page of a river"])


def test_negative_term_weights_are_refused(from_vllm, vllm_servers):
    def lie(answer):
        rows = [{**one, "data": [-x - 1 for x in one["data"]]} for one in answer["data"]]
        return {**answer, "data": rows}

    from_vllm.encode_documents(["page"])
    vllm_servers["sparse"].change = lie
    with pytest.raises(EncoderAnswerError, match="term weights ≥ 0"):
        from_vllm.encode_documents(["river"])


def test_a_model_the_server_does_not_have_is_named(vllm_servers, tiny_m3):
    other = VllmEncoder(vllm_servers["dense"].url, tokenizer=tiny_m3, model="other/model")
    with pytest.raises(EncoderAnswerError, match=r"other/model.*BAAI/bge-m3"):
        other.encode_query("page")


def test_the_fingerprint_is_of_what_is_known(tei_server, vllm_servers, tiny_m3, other_m3):
    made = partial(TeiEncoder, tei_server.url, tokenizer=tiny_m3)
    first = made(heads=tiny_m3).fingerprint
    assert first == made(heads=tiny_m3, truncation="windows").fingerprint
    others = {
        made(heads=tiny_m3, truncate_dim=8).fingerprint,
        made(heads=other_m3).fingerprint,
        made(heads=tiny_m3, pooling="mean").fingerprint,
    }
    assert first not in others
    assert len(others) == 3
    assert made(heads=tiny_m3, fingerprint="abc").fingerprint == "abc"
    url = vllm_servers["dense"].url
    assert VllmEncoder(url, tokenizer=tiny_m3).fingerprint != first


def test_an_index_built_here_opens_with_the_server_that_is_said_to_have_the_model(
    encoder, from_tei, tei_server, tiny_m3, tmp_path
):
    local = HybridRetriever(encoder)
    local.add(list(SENTENCES[:5]))
    local.save(tmp_path / "index")
    there = TeiEncoder(tei_server.url, heads=tiny_m3, fingerprint=encoder.fingerprint)
    opened = HybridRetriever.load(tmp_path / "index", there)
    asked = SENTENCES[3]
    scores = [hit.score for hit in opened.search(asked)]
    assert scores == pytest.approx([hit.score for hit in local.search(asked)], abs=1e-5)


@pytest.mark.parametrize("kind", ["from_tei", "from_vllm"])
def test_explanations_add_up_with_a_remote_encoder(kind, request):
    remote = request.getfixturevalue(kind)
    retriever = HybridRetriever(remote)
    retriever.add(list(SENTENCES[:4]))
    hit = retriever.search(SENTENCES[1])[0]
    found = explain(SENTENCES[1], hit, retriever=retriever)
    assert found.notes == ()
    assert len(found.query.vector_labels) == len(found.alignment.similarities)
    assert ("</s>" in found.query.vector_labels) == (kind == "from_tei")


def test_it_can_be_pickled_and_read_on(from_tei, from_vllm):
    for remote in (from_tei, from_vllm):
        again = pickle.loads(pickle.dumps(remote))
        same_row = again.encode_query("page").dense
        np.testing.assert_allclose(same_row, remote.encode_query("page").dense, atol=1e-6)
        again.close()


def test_what_cannot_be_meant_is_refused_at_once(tiny_m3, tmp_path):
    for url in ("localhost:8080", "ftp://x", "", "http://", "http://x?key=1", 5, "http://x:port"):
        with pytest.raises(InputError, match="url expects"):
            VllmEncoder(url, tokenizer=tiny_m3)
    for urls in ({}, {"vectors": "http://x"}):
        with pytest.raises(InputError, match="dense"):
            VllmEncoder(urls, tokenizer=tiny_m3)
    with pytest.raises(CheckpointError, match="sparse_linear"):
        TeiEncoder("http://localhost", heads=tmp_path)
    with pytest.raises(InputError, match="pooling"):
        TeiEncoder("http://localhost", heads=tiny_m3, pooling="max")
    for option in ({"timeout": 0}, {"retries": -1}, {"in_flight": 0}, {"api_key": "a\nb"}):
        with pytest.raises(InputError):
            Connection(**option)


def test_nothing_is_sent_before_it_is_needed(tiny_m3):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = TeiEncoder("http://127.0.0.1:9", heads=tiny_m3)
    assert made.outputs == ("dense", "sparse", "colbert")
    assert "127.0.0.1:9" in repr(made)
