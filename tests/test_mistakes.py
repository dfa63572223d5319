"""What newcomers type that is not quite right, and what they are told."""

import copy
import pickle

import numpy as np
import pytest
import torch

from m3_retrievers import (
    Hit,
    HybridRetriever,
    HybridWeights,
    M3Encoder,
    Recall,
    ReciprocalRankFusion,
)
from m3_retrievers.errors import (
    CallError,
    FilterError,
    IndexModelError,
    InputError,
    UnknownNameError,
)
from m3_retrievers.explain import explain


@pytest.fixture
def retriever(encoder):
    made = HybridRetriever(encoder)
    made.add(["the page"], ids=["a"])
    return made


def test_a_models_name_is_no_encoder():
    with pytest.raises(InputError, match=r"M3Encoder\.from_pretrained"):
        M3Encoder("m3-mini")
    for name in (None, 3, M3Encoder):
        with pytest.raises(InputError, match=r"encoder expects an M3Encoder.*from_pretrained"):
            HybridRetriever(name)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"recall": 50}, r"Recall\(dense=50\)"),
        ({"fusion": "rrf"}, r"ReciprocalRankFusion\(\)"),
        ({"weights": [1, 0.3, 1]}, r"HybridWeights\(dense=1"),
        ({"index": []}, "LocalIndex"),
    ],
)
def test_a_part_of_the_wrong_kind_is_refused_at_once(encoder, option, told):
    with pytest.raises(InputError, match=told):
        HybridRetriever(encoder, **option)


@pytest.mark.parametrize("query", [["a"], None, {"question": "a"}])
def test_a_query_is_one_string(encoder, query):
    with pytest.raises(InputError, match="A query expects one string"):
        encoder.encode_query(query)


@pytest.mark.parametrize(
    ("option", "told"),
    [({"ids": "1"}, "ids expects a list"), ({"metadata": {"year": 1}}, "metadata expects a list")],
)
def test_what_belongs_to_many_texts_is_a_list(retriever, option, told):
    with pytest.raises(InputError, match=told):
        retriever.add(["x"], **option)
    assert len(retriever) == 1


def test_an_operator_without_its_dollar_is_named(retriever):
    with pytest.raises(FilterError, match=r"Did you mean \{'\$gte': 2020\}"):
        retriever.search("page", filter={"year": {"gte": 2020}})
    # a mapping that is no list of operators is a value to compare with
    assert retriever.search("page", filter={"author": {"name": "Ada"}}) == []


def test_explain_says_what_a_framework_has_to_pass(retriever):
    with pytest.raises(InputError, match=r"the document's id and retriever=retriever\.hybrid"):
        explain("page", object(), retriever=retriever)
    with pytest.raises(InputError, match=r"retriever\.hybrid"):
        explain("page", Hit("a", "the page", 1.0), retriever=object())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_at_once(tiny_m3):
    with pytest.raises(InputError, match="got 'cuda', which PyTorch does not find"):
        M3Encoder.from_pretrained(tiny_m3, device="cuda")


def test_an_index_of_the_same_model_with_other_settings_says_so(retriever, tiny_m3, tmp_path):
    retriever.save(tmp_path / "index")
    shorter = M3Encoder.from_pretrained(tiny_m3, device="cpu", truncate_dim=8)
    with pytest.raises(IndexModelError, match="truncate_dim or mcls_every differ"):
        HybridRetriever.load(tmp_path / "index", shorter)


def test_an_encoder_is_shared_by_copies_and_loaded_anew_by_other_processes(encoder):
    assert copy.deepcopy(encoder) is encoder
    again = pickle.loads(pickle.dumps(encoder))
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(
        again.encode_query("page").require("dense"), encoder.encode_query("page").require("dense")
    )


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda r: r.search("page", top_k=3), r"HybridRetriever\.search .*Did you mean k=\?"),
        (lambda r: r.search("page", 3), r"takes query by position, got 2.*by name: k=…, filter=…"),
        (lambda r: r.add(["x"], metadatas=[{}]), r"Did you mean metadata=\?"),
        (lambda r: r.save(), r"HybridRetriever\.save expects folder=, got none"),
        (lambda r: HybridRetriever(), r"HybridRetriever expects encoder=, got none"),
        (lambda r: HybridRetriever(r.encoder, wieghts=None), r"Did you mean weights=\?"),
        (lambda r: ReciprocalRankFusion(c=60), r"Did you mean k=\?"),
        (lambda r: Recall(sparse=10), r"Did you mean lexical=\?"),
        (lambda r: HybridWeights(lexical=0.3), r"Did you mean sparse=\?"),
        (lambda r: M3Encoder.from_pretrained("m3-mini", use_fp16=True), r"mean precision=\?"),
        (lambda r: M3Encoder.from_pretrained("m3-mini", dtype="auto"), r"mean precision=\?"),
        (lambda r: M3Encoder.from_pretrained("m3-mini", trust_remote_code=True), "never run"),
        (lambda r: r.encoder.encode_documents(["a"], return_dense=True), r"mean outputs=\?"),
    ],
)
def test_a_call_that_does_not_fit_says_what_to_type(retriever, call, told):
    with pytest.raises(CallError, match=told):
        call(retriever)


async def test_an_awaited_call_that_does_not_fit_says_what_to_type(retriever):
    with pytest.raises(CallError, match=r"HybridRetriever\.asearch .*Did you mean k=\?"):
        await retriever.asearch("page", top_k=3)


def test_a_type_error_inside_a_call_stays_what_it_is(retriever):
    def fusion(rankings):
        return len(None)

    retriever.fusion = fusion
    with pytest.raises(TypeError, match="NoneType"):
        retriever.search("page")


@pytest.mark.parametrize(
    ("name", "write"),
    [("add_texts", "add"), ("similarity_search", "search"), ("ids", "index"), ("persist", "save")],
)
def test_a_name_of_another_library_says_what_to_write(retriever, name, write):
    assert not hasattr(retriever, name)
    assert name not in dir(retriever)
    with pytest.raises(UnknownNameError, match=f"HybridRetriever has no '{name}'. Write {write}"):
        getattr(retriever, name)
    with pytest.raises(UnknownNameError, match=r"has no 'k'. Write search\(query, k=…\)"):
        retriever.k = 5


def test_flag_embeddings_names_say_what_they_are_called(encoder):
    with pytest.raises(UnknownNameError, match="encode_documents"):
        encoder.encode(["a"])
    encoded = encoder.encode_documents(["a"])
    with pytest.raises(UnknownNameError, match="Write dense"):
        encoded.dense_vecs  # noqa: B018
    with pytest.raises(InputError, match=r"row numbers, got 'dense_vecs'.*\.dense"):
        encoded["dense_vecs"]
    with pytest.raises(UnknownNameError, match="Write text"):
        Hit("a", "x", 1.0).page_content  # noqa: B018
    with pytest.raises(ImportError, match="Write M3Encoder"):
        from m3_retrievers import BGEM3FlagModel  # noqa: F401


def test_an_empty_retriever_is_one_too(encoder, retriever):
    assert HybridRetriever(encoder)
    assert ("a" in retriever, "b" in retriever, ["a"] in retriever) == (True, False, False)


def test_texts_of_a_numpy_array_are_stored_as_strings(encoder):
    made = HybridRetriever(encoder)
    made.add(np.array(["the page"]), ids=["a"])
    assert type(made.get(["a"])[0].text) is str


@pytest.mark.parametrize("texts", [{"a": "the page"}, {"the page"}])
def test_a_mapping_or_a_set_is_no_list_of_texts(encoder, texts):
    for takes in (encoder.encode_documents, HybridRetriever(encoder).add):
        with pytest.raises(InputError, match="expected a list of texts"):
            takes(texts)


def test_weights_of_a_fusion_are_named():
    with pytest.raises(InputError, match=r"weights expects a mapping.*got \[0\.5, 0\.5\]"):
        ReciprocalRankFusion(weights=[0.5, 0.5])


def test_representations_are_short_in_a_terminal(encoder):
    told = repr(encoder.encode_documents(["a", "b"]))
    assert told == "Representations(texts=2, outputs=('dense', 'sparse', 'colbert'))"
