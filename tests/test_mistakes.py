"""What newcomers type that is not quite right, and what they are told."""

import copy
import pickle

import numpy as np
import pytest
import torch

from m3_retrievers import Hit, HybridRetriever, M3Encoder
from m3_retrievers.errors import FilterError, IndexModelError, InputError
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


def test_representations_are_short_in_a_terminal(encoder):
    told = repr(encoder.encode_documents(["a", "b"]))
    assert told == "Representations(texts=2, outputs=('dense', 'sparse', 'colbert'))"
