"""Options by name: what an unknown one meant, and what goes with what."""

import pytest

from m3_retrievers import BM25, HybridRetriever, M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.frameworks.ensemble import check_sources, chosen_fusion
from m3_retrievers.frameworks.options import hybrid_retriever
from m3_retrievers.frameworks.scores import read_scores, write_scores
from m3_retrievers.habits import check_options
from m3_retrievers.lexical.tokenizers import WordTokenizer


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("top_k", "k"),
        ("similarity_top_k", "k"),
        ("embedding", "encoder"),
        ("embed_model", "encoder"),
        ("wieghts", "weights"),
        ("base_compressor", "reranker"),
        ("zzz", None),
    ],
)
def test_what_an_unknown_option_meant(typed: str, meant: str | None) -> None:
    known = ("k", "encoder", "weights", "reranker")
    with pytest.raises(InputError, match=f"Thing got the option '{typed}'") as refused:
        check_options([typed], known=known, owner="Thing")
    assert (f"Did you mean {meant}=?" in str(refused.value)) is (meant is not None)
    assert "It takes encoder, k, reranker, weights." in str(refused.value)


def test_a_bm25_or_a_tokenizer_is_given_with_the_documents(tiny_m3: object) -> None:
    def method(encoder: object, **options: object) -> None:
        """Stands for a framework's way in."""

    encoder = M3Encoder.from_pretrained(str(tiny_m3))
    legs = ["dense", "bm25"]
    bm25, words = BM25(k1=1.2), WordTokenizer()
    made = hybrid_retriever(encoder, options={"legs": legs, "bm25": bm25}, method=method)
    assert made.index.weighting is bm25
    made = hybrid_retriever(encoder, options={"legs": legs, "tokenizer": words}, method=method)
    assert made.index.weighting.terms("the pages") == ["the", "pages"]
    made = hybrid_retriever(encoder, options={"legs": legs, "tokenizer": "en"}, method=method)
    assert made.index.weighting.terms("the pages") == ["the", "page"]
    with pytest.raises(InputError, match=r"bm25= or tokenizer=, got both"):
        hybrid_retriever(encoder, options={"bm25": bm25, "tokenizer": words}, method=method)
    with pytest.raises(InputError, match="bm25 expects a BM25"):
        hybrid_retriever(encoder, options={"legs": legs, "bm25": "okapi"}, method=method)
    with pytest.raises(InputError, match="'bm25' among the legs"):
        hybrid_retriever(encoder, options={"bm25": bm25}, method=method)
    with pytest.raises(InputError, match=r"'legz'.*Did you mean legs"):
        hybrid_retriever(encoder, options={"legz": legs}, method=method)


def test_weights_of_retrievers_are_one_number_each() -> None:
    fusion = chosen_fusion(None, [1, 0.5], count=2)
    assert fusion.weights == {"retriever_1": 1, "retriever_2": 0.5}  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="got 1 for 2 retrievers"):
        chosen_fusion(None, [1.0], count=2)
    with pytest.raises(InputError, match="no fusion beside it"):
        chosen_fusion(fusion, [1.0, 2.0], count=2)
    with pytest.raises(InputError, match="HybridWeights weigh the modes of one index"):
        chosen_fusion(None, {"dense": 1.0}, count=1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="weight"):
        chosen_fusion(None, [1.0, float("nan")], count=2)


def test_an_ensemble_has_one_source() -> None:
    nothing = {"fusion": None}
    for hybrid, retrievers in ((None, None), (None, []), (object(), [object()])):
        with pytest.raises(InputError, match=r"hybrid= or a list retrievers=.*from_things"):
            check_sources(hybrid, retrievers, made_by="from_things", retrievers_only=nothing)
    with pytest.raises(InputError, match=r"\['fusion'\] belong to retrievers="):
        check_sources(object(), None, made_by="x", retrievers_only={"fusion": object()})


def test_a_callers_own_scores_are_not_ours() -> None:
    own = {"scores": [1, 2], "score": 3}
    assert read_scores(own) == {}
    assert write_scores(own, {"dense": 1.0}, "off") == own
    assert write_scores(own, {"dense": 1.0}, "flat") == {**own, "score_dense": 1.0}


def test_a_new_style_replaces_the_old() -> None:
    nested = write_scores({"n": 1}, {"dense": 1.0}, "nested")
    flat = write_scores(nested, read_scores(nested), "flat")
    assert flat == {"n": 1, "score_dense": 1.0}
    assert write_scores(flat, read_scores(flat), "nested") == nested
    assert write_scores(flat, read_scores(flat), "off") == {"n": 1}


def test_a_hybrid_retriever_is_made_of_a_name(tiny_m3: object) -> None:
    def method(encoder: object, **options: object) -> None:
        """Stands for a framework's way in."""

    made = hybrid_retriever(str(tiny_m3), options={}, method=method)
    assert isinstance(made, HybridRetriever)
