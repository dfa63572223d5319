"""SPLADE: the same numbers as sentence-transformers, its layouts, its options, its errors."""

import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from m3_retrievers import HybridRetriever, SpladeEncoder
from m3_retrievers.encoder.recent import Keep
from m3_retrievers.errors import (
    CheckpointError,
    InputError,
    LexicalFallbackWarning,
    MissingHeadError,
    TextTooLongError,
    TruncationWarning,
)
from m3_retrievers.explain import explain
from sentences import SENTENCES
from splade_checkpoints import as_sentence_transformers, write_router, write_tiny_splade

TEXTS = [*SENTENCES[:6], "", "page page page"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_splade(tmp_path_factory.mktemp("splade") / "bert")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SpladeEncoder:
    return SpladeEncoder.from_pretrained(folder, device="cpu")


def theirs(folder: Path, texts: list[str], *, query: bool) -> np.ndarray:
    from sentence_transformers import SparseEncoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own deprecations
        model = SparseEncoder(str(folder), device="cpu", local_files_only=True)
        encode = model.encode_query if query else model.encode_document
        return encode(texts, convert_to_sparse_tensor=False, show_progress_bar=False).numpy()


def by_definition(folder: Path, text: str, *, pooling: str = "max") -> np.ndarray:
    """log(1 + relu(logits)) of the whole model, pooled over every token."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    read = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        weights = torch.log1p(torch.relu(model(**read).logits))[0]
    pooled = weights.amax(0) if pooling == "max" else weights.sum(0)
    return pooled.numpy()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
@pytest.mark.parametrize(("pooling", "activation"), [("max", "relu"), ("sum", "log1p_relu")])
def test_weights_equal_those_of_sentence_transformers(tmp_path, kind, pooling, activation):
    folder = write_tiny_splade(tmp_path / kind, kind=kind)
    as_sentence_transformers(folder, pooling=pooling, activation=activation)
    ours = SpladeEncoder.from_pretrained(folder, device="cpu").encode_documents(TEXTS).sparse
    expected = theirs(folder, TEXTS, query=False)
    assert (expected > 0).mean() > 0.1
    np.testing.assert_allclose(ours.toarray(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_queries_by_a_table_equal_those_of_sentence_transformers(tmp_path):
    table = write_router(tmp_path)
    encoder = SpladeEncoder.from_pretrained(tmp_path, device="cpu")
    queries = encoder.encode_queries(TEXTS).sparse
    np.testing.assert_allclose(queries.toarray(), theirs(tmp_path, TEXTS, query=True), atol=1e-6)
    assert set(queries.data.tolist()) <= set(table.numpy().tolist())
    assert encoder.encode_documents(TEXTS[:1]).sparse.nnz > queries[[0]].nnz  # expanded


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_a_weight_is_the_pooled_log_of_the_positive_logits(folder, pooling):
    encoder = SpladeEncoder.from_pretrained(folder, device="cpu", pooling=pooling)
    found = encoder.encode_documents([SENTENCES[0]]).sparse.toarray()[0]
    np.testing.assert_allclose(
        found, by_definition(folder, SENTENCES[0], pooling=pooling), atol=1e-5
    )


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_logits_in_small_parts_change_no_weight(folder, monkeypatch, pooling):
    encoder = SpladeEncoder.from_pretrained(folder, device="cpu", pooling=pooling, keep=None)
    whole = encoder.encode_documents(TEXTS).sparse.toarray()
    monkeypatch.setattr("m3_retrievers.encoder.splade_model._LOGITS_AT_ONCE", 1)
    parts = encoder.encode_documents(TEXTS).sparse.toarray()
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_batch_mates_order_and_repetition_change_no_row(encoder):
    whole = encoder.encode_documents(TEXTS).sparse.toarray()
    other = SpladeEncoder.from_pretrained(encoder.name, device="cpu", keep=None)
    turned = other.encode_documents([*TEXTS[::-1], TEXTS[0]]).sparse.toarray()
    np.testing.assert_allclose(turned[:-1][::-1], whole, atol=1e-5)
    assert np.array_equal(turned[-1], turned[-2])


def test_the_largest_terms_of_a_document_are_kept_and_queries_stay_whole(encoder, folder):
    pruned = SpladeEncoder.from_pretrained(folder, device="cpu", top_terms=5)
    whole = encoder.encode_documents(TEXTS).sparse
    kept = pruned.encode_documents(TEXTS).sparse
    assert np.diff(kept.indptr).tolist() == [min(5, n) for n in np.diff(whole.indptr)]
    for row in range(len(TEXTS)):
        largest = np.sort(whole[[row]].data)[::-1][:5]
        np.testing.assert_allclose(np.sort(kept[[row]].data)[::-1], largest, atol=1e-6)
    assert pruned.encode_queries(TEXTS).sparse.nnz == whole.nnz
    assert pruned.fingerprint != encoder.fingerprint


def test_query_weights_come_from_ones_or_a_file_of_tokens(folder, tmp_path):
    ones = SpladeEncoder.from_pretrained(folder, query_weights="ones", device="cpu")
    row = ones.encode_query("page page river").sparse
    assert set(row.data.tolist()) == {1.0}
    (tmp_path / "idf.json").write_text(json.dumps({"page": 2.5, "no such token": 1}))
    weighed = SpladeEncoder.from_pretrained(
        folder, query_weights=tmp_path / "idf.json", device="cpu"
    )
    [weights] = weighed.encode_query("page river").to_dicts()
    assert list(weights.values()) == [2.5]
    assert weighed.terms(list(weights)) == ["page"]
    assert weighed.fingerprint == ones.fingerprint  # documents are the same


def test_windows_give_the_largest_weights_of_all_parts(folder):
    long = " ".join(SENTENCES)
    cut = SpladeEncoder.from_pretrained(folder, device="cpu", document_max_length=20)
    with pytest.warns(TruncationWarning, match="1 of 1 texts were cut to 18 tokens"):
        short = cut.encode_documents([long]).sparse.toarray()
    read = SpladeEncoder.from_pretrained(
        folder, device="cpu", document_max_length=20, truncation="windows"
    )
    whole = read.encode_documents([long]).sparse.toarray()
    assert (whole >= short - 1e-6).all()
    assert (whole > short + 1e-3).any()
    refusing = SpladeEncoder.from_pretrained(
        folder, device="cpu", document_max_length=20, truncation="error"
    )
    with pytest.raises(TextTooLongError):
        refusing.encode_documents([long])


def test_no_texts_and_empty_texts(encoder):
    assert encoder.encode_documents([]).sparse.shape == (0, encoder.vocabulary_size)
    assert encoder.encode_documents([""]).sparse.shape == (1, encoder.vocabulary_size)


def test_it_makes_sparse_rows_alone_and_says_so(encoder):
    assert encoder.outputs == ("sparse",)
    with pytest.raises(MissingHeadError, match="dense"):
        encoder.encode_query("page", outputs=("dense",))
    with pytest.raises(MissingHeadError, match="CombinedEncoder"):
        encoder.dimension  # noqa: B018


def test_a_pickle_is_the_same_model(encoder):
    other = pickle.loads(pickle.dumps(encoder))
    assert other.fingerprint == encoder.fingerprint
    assert other.encode_query("page").to_dicts() == encoder.encode_query("page").to_dicts()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "mean"}, "pooling expects"),
        ({"activation": "gelu"}, "activation expects"),
        ({"top_terms": 0}, "top_terms expects"),
        ({"query_weights": "nowhere.json"}, "query_weights expects"),
        ({"keep": 5}, "keep expects"),
    ],
)
def test_a_wrong_option_is_named(folder, options, message):
    with pytest.raises(InputError, match=message):
        SpladeEncoder.from_pretrained(folder, **options)


def test_a_model_without_its_head_is_refused(tiny_bert, tmp_path):
    for path in tiny_bert.iterdir():
        if path.is_file() and path.name != "modules.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match="they would be random"):
        SpladeEncoder.from_pretrained(tmp_path, device="cpu").encode_query("page")
    with pytest.raises(CheckpointError, match="chain of"):
        SpladeEncoder.from_pretrained(tiny_bert, device="cpu")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("modules.json", "{}", "list of modules"),
        ("modules.json", '[{"type": "x.Transformer", "path": "../.."}]', "outside"),
        ("modules.json", '[{"type": "x.Dense", "path": ""}]', "chain of"),
        ("modules.json", '[{"type": "x.Router", "path": ""}]', "router_config"),
        ("idf.json", '{"page": "much"}', "a number for each token"),
        ("idf.json", '{"page": -1}', "finite weights"),
    ],
)
def test_a_broken_layout_is_a_checkpoint_error(folder, tmp_path, name, content, message):
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        SpladeEncoder.from_pretrained(tmp_path, device="cpu").encode_query("page")


def test_a_retriever_over_it_recalls_by_its_terms_and_explains_expansion(encoder):
    with pytest.warns(LexicalFallbackWarning, match="no dense vectors"):
        retriever = HybridRetriever(encoder)
    assert retriever.legs == ("sparse",)
    retriever.add(SENTENCES[:5])
    hits = retriever.search(SENTENCES[1], k=5)
    asked = encoder.encode_query(SENTENCES[1]).sparse
    documents = encoder.encode_documents(SENTENCES[:5]).sparse
    expected = np.sort((documents @ asked.T).toarray().ravel())[::-1]
    np.testing.assert_allclose([hit.score for hit in hits], expected, rtol=1e-5)
    explained = explain(SENTENCES[1], hits[0], retriever=retriever)
    shares = explained.terms["sparse"]
    assert sum(share.score for share in shares) == pytest.approx(hits[0].score, rel=1e-4)
    added = [share for share in shares if share.expansion]
    assert added, "a random model weighs terms that stand in neither text"
    assert all(not share.query_spans and not share.document_spans for share in added)


def test_what_was_computed_is_kept_within_bounds(folder):
    encoder = SpladeEncoder.from_pretrained(folder, device="cpu", keep=Keep(queries=2))
    calls = []
    body = encoder._reader(query=True).body
    body.register_forward_pre_hook(lambda *_: calls.append(1))
    for text in ("page", "river", "page", "clock", "river"):  # the last was pushed out
        encoder.encode_query(text)
    assert len(calls) == 4


def test_a_view_reads_its_text_once_beside_the_count_of_what_was_cut(folder, monkeypatch):
    from m3_retrievers.encoder import reading_encoder

    encoder = SpladeEncoder.from_pretrained(folder, device="cpu")
    read = []
    real = reading_encoder.read_texts
    monkeypatch.setattr(
        reading_encoder,
        "read_texts",
        lambda *args, **options: read.append(1) or real(*args, **options),
    )
    view = encoder.view("the page", query=True)
    assert len(read) == 1
    [weights] = encoder.encode_query("the page").to_dicts()
    assert [one.weight for one in view.tokens] == [weights.get(one.id, 0.0) for one in view.tokens]
