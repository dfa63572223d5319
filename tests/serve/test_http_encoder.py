"""HttpEncoder over a server of its own kind: the same numbers, the same warnings, no lies."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import load, save

from live_server import live
from m3_retrievers import HybridRetriever, M3Encoder, SpladeEncoder
from m3_retrievers.encoder.remote.connection import Connection
from m3_retrievers.encoder.remote.http import HttpEncoder
from m3_retrievers.encoder.remote.tei import TeiEncoder
from m3_retrievers.encoder.remote.wire import packed
from m3_retrievers.errors import (
    EncoderAnswerError,
    InputError,
    MissingHeadError,
    TextTooLongError,
    TruncationWarning,
    UnknownTokenWarning,
)
from m3_retrievers.explain import explain
from m3_retrievers.serve import Limits, create_app
from m3_retrievers.testing import EncoderContract
from model_servers import running
from sentences import SENTENCES
from splade_checkpoints import write_tiny_splade

# the servers of these tests answer on loopback; no other host can be reached
pytestmark = [
    pytest.mark.slow,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.filterwarnings("ignore::m3_retrievers.errors.UnknownTokenWarning"),
]
TEXTS = [*SENTENCES[:8], "", "page page page", "\ud800 half a pair"]


@pytest.fixture(scope="module")
def local(tiny_m3):
    return M3Encoder.from_pretrained(tiny_m3, device="cpu")


@pytest.fixture(scope="module")
def url(local):
    with live(create_app(local, limits=Limits(max_texts=8, queue=64))) as address:
        yield address


@pytest.fixture
def remote(url):
    made = HttpEncoder(url, keep=None)
    yield made
    made.close()


class TestHttpEncoder(EncoderContract):
    @pytest.fixture
    def encoder(self, remote):
        return remote


class TestHttpEncoderInFloat16(EncoderContract):
    tolerance = 1e-3

    @pytest.fixture
    def encoder(self, url):
        made = HttpEncoder(url, dtype="float16", keep=None)
        yield made
        made.close()


@pytest.mark.parametrize("role", ["encode_queries", "encode_documents"])
def test_it_gives_what_the_servers_encoder_gives(remote, encoder, role):
    found, expected = getattr(remote, role)(TEXTS), getattr(encoder, role)(TEXTS)
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
    assert abs(found.sparse - expected.sparse).max() < 1e-5
    np.testing.assert_array_equal(found.colbert.offsets, expected.colbert.offsets)
    np.testing.assert_allclose(found.colbert.vectors, expected.colbert.vectors, atol=1e-5)


def test_it_says_of_itself_what_the_servers_encoder_says(remote, encoder):
    for name in ("name", "outputs", "dimension", "vocabulary_size", "fingerprint"):
        assert getattr(remote, name) == getattr(encoder, name)
    assert remote.default_weights == encoder.default_weights


def test_an_index_built_here_opens_there_and_is_explained_alike(remote, encoder, tmp_path):
    local = HybridRetriever(encoder)
    local.add(list(SENTENCES[:5]))
    local.save(tmp_path / "index")
    opened = HybridRetriever.load(tmp_path / "index", remote)
    asked = SENTENCES[3]
    found, expected = opened.search(asked)[0], local.search(asked)[0]
    assert found.score == pytest.approx(expected.score, abs=1e-5)
    here = explain(asked, expected, retriever=local).to_dict()
    there = explain(asked, found, retriever=opened).to_dict()
    assert there["notes"] == here["notes"]
    assert [one["term"] for one in there["terms"]["sparse"]] == [
        one["term"] for one in here["terms"]["sparse"]
    ]
    spans = [[t["span"] for t in found["document"]["tokens"]] for found in (here, there)]
    assert spans[0] == spans[1]


def test_a_model_without_all_outputs_is_served_too(tmp_path):
    splade = SpladeEncoder.from_pretrained(write_tiny_splade(tmp_path / "splade"), device="cpu")
    with live(create_app(splade)) as address:
        remote = HttpEncoder(address)
        assert remote.outputs == ("sparse",)
        found = remote.encode_documents(["the page"])
        assert abs(found.sparse - splade.encode_documents(["the page"]).sparse).max() < 1e-5
        with pytest.raises(MissingHeadError):
            remote.dimension  # noqa: B018
        with pytest.raises(MissingHeadError, match="dense"):
            remote.encode_query("page", outputs=("dense",))
        remote.close()


def test_what_the_server_cuts_or_cannot_read_is_warned_of_here(tiny_m3):
    short = M3Encoder.from_pretrained(tiny_m3, device="cpu", document_max_length=8)
    with live(create_app(short, limits=Limits(max_texts=2, queue=8))) as address:
        remote = HttpEncoder(address, keep=None)
        long = [" ".join(SENTENCES[n : n + 3]) for n in range(3)]
        with pytest.warns(TruncationWarning, match="were cut to 6 tokens.*1 more request") as given:
            remote.encode_documents(long)
        assert len([w for w in given if w.category is TruncationWarning]) == 1
        assert given[0].filename == __file__
        with pytest.warns(UnknownTokenWarning):
            assert not remote.encode_documents(["ꙮꙮꙮ"]).dense.any()
        remote.close()


def test_what_the_server_refuses_is_an_error_here(tiny_m3):
    strict = M3Encoder.from_pretrained(
        tiny_m3, device="cpu", document_max_length=8, truncation="error"
    )
    with live(create_app(strict)) as address:
        remote = HttpEncoder(address)
        with pytest.raises(EncoderAnswerError, match="at most 6 tokens"):
            remote.encode_documents([" ".join(SENTENCES[:3])])
        remote.close()
    with pytest.raises(TextTooLongError):
        strict.encode_documents([" ".join(SENTENCES[:3])])


def test_tei_encoder_reads_this_server_as_well(url, encoder, tiny_m3):
    connection = Connection(batch_tokens=512)
    remote = TeiEncoder(url, heads=tiny_m3, connection=connection, keep=None)
    found, expected = remote.encode_documents(TEXTS), encoder.encode_documents(TEXTS)
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-5)
    np.testing.assert_allclose(found.colbert.vectors, expected.colbert.vectors, atol=1e-5)
    remote.close()


def test_it_can_be_pickled_and_is_shown_without_asking(remote):
    again = pickle.loads(pickle.dumps(remote))
    assert again.fingerprint == remote.fingerprint
    again.close()
    assert repr(HttpEncoder("http://127.0.0.1:9/v1")) == "HttpEncoder('http://127.0.0.1:9')"
    with pytest.raises(InputError, match="dtype"):
        HttpEncoder("http://127.0.0.1:9", dtype="int8")


ABOUT = {
    "model": {
        "name": "m", "outputs": ["dense", "sparse", "colbert"], "dimension": 32,
        "vocabulary_size": 0, "weights": {"dense": 1, "sparse": 0.3, "colbert": 1},
        "fingerprint": "f",
    },
    "limits": {"max_texts": 8},
}  # fmt: skip


@pytest.fixture
def liar(encoder):
    size = encoder.vocabulary_size
    health = {**ABOUT, "model": {**ABOUT["model"], "vocabulary_size": size}}
    with running(lambda seen: health) as server:
        yield server


def body_of(encoder, change, about=None):
    """Return a right answer with some of its arrays changed."""
    content = packed(
        encoder.encode_documents(["page of a river"]),
        about or {"fingerprint": "f"},
        dtype="float32",
    )
    arrays = load(content)
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    return save(change(arrays), metadata=metadata)


def shift(name, by):
    return lambda arrays: {**arrays, name: arrays[name] + np.asarray(by, arrays[name].dtype)}


LIES = {
    "no dense": lambda a: {k: v for k, v in a.items() if k != "dense"},
    "a wrong width": lambda a: {**a, "dense": a["dense"][:, :-1].copy()},
    "more rows": lambda a: {**a, "dense": np.concatenate([a["dense"]] * 2)},
    "NaN": shift("dense", np.nan),
    "integers": lambda a: {**a, "colbert.vectors": a["colbert.vectors"].astype(bool)},
    "columns beyond the vocabulary": shift("sparse.indices", 10**6),
    "columns below 0": shift("sparse.indices", -(10**6)),
    "columns that descend": lambda a: {**a, "sparse.indices": a["sparse.indices"][::-1].copy()},
    "offsets that end elsewhere": shift("sparse.indptr", [0, 1]),
    "offsets of ColBERT from 1": shift("colbert.offsets", 1),
    "negative weights": shift("sparse.data", -100),
    "vectors of zeros": lambda a: {**a, "colbert.vectors": a["colbert.vectors"] * 0},
    "offsets as float": lambda a: {**a, "sparse.indptr": a["sparse.indptr"].astype(np.float32)},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_server_is_an_error_that_names_it_and_the_text(liar, encoder, lie):
    texts = ["page of a river"]
    right = encoder.encode_documents(texts)
    content = packed(right, {"fingerprint": "f"}, dtype="float32")
    liar.before = lambda seen: (200, {}, content) if seen.path == "/encode" else None
    remote = HttpEncoder(liar.url, keep=None)
    np.testing.assert_allclose(remote.encode_documents(texts).dense, right.dense, atol=1e-6)
    torn = body_of(encoder, LIES[lie])
    liar.before = lambda seen: (200, {}, torn) if seen.path == "/encode" else None
    with pytest.raises(EncoderAnswerError, match=r"127\.0\.0\.1:\d+/encode.*'page of a river'"):
        remote.encode_documents(texts)
    remote.close()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, b"\x08" + b"\0" * 7 + b'{"a": 1}'])
def test_what_is_no_safetensors_is_said(liar, content):
    liar.before = lambda seen: (200, {}, content) if seen.path == "/encode" else None
    remote = HttpEncoder(liar.url, keep=None)
    with pytest.raises(EncoderAnswerError, match="safetensors"):
        remote.encode_documents(["page"])
    remote.close()


def test_a_server_that_was_started_with_another_model_is_noticed(liar, encoder):
    content = body_of(encoder, lambda a: a, {"fingerprint": "another"})
    liar.before = lambda seen: (200, {}, content) if seen.path == "/encode" else None
    remote = HttpEncoder(liar.url, keep=None)
    with pytest.raises(EncoderAnswerError, match="another model"):
        remote.encode_documents(["page"])
    remote.close()


def test_a_server_of_another_kind_is_named_as_such():
    for health in ({}, {"status": "ok"}, [], {**ABOUT, "limits": {"max_texts": 0}}):
        with running(lambda _, health=health: health) as server:
            remote = HttpEncoder(server.url)
            with pytest.raises(EncoderAnswerError, match="m3-retrievers serve"):
                remote.name  # noqa: B018
            remote.close()
