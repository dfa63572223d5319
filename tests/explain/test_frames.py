"""Explanations as data frames: the terms, and what each query token found."""

import pytest

from m3_retrievers import HeadSpec, Hit, HybridRetriever, M3Encoder, checks
from m3_retrievers.errors import MissingExtraError, MissingOutputError
from m3_retrievers.explain import explain

DOCUMENTS = ["A librarian finds the one page that matters.", "The river rose.", "page page pages"]


@pytest.fixture(scope="module")
def why(tiny_m3):
    retriever = HybridRetriever(
        M3Encoder.from_pretrained(tiny_m3, device="cpu"), legs=("dense", "sparse", "bm25")
    )
    retriever.add(DOCUMENTS)
    return explain("the page", retriever.search("the page")[0], retriever=retriever)


def test_the_terms_add_up_to_the_score_and_their_shares_to_its_part(why):
    frame = why.to_pandas()
    assert list(frame.columns) == [
        "mode",
        "term",
        "score",
        "share",
        "query_weight",
        "document_weight",
        "query_spans",
        "document_spans",
    ]
    learned = frame[frame["mode"] == "sparse"]
    assert learned["score"].sum() == pytest.approx(why.hit.scores["sparse"], abs=1e-5)
    assert learned["share"].sum() == pytest.approx(why.shares["sparse"], abs=1e-5)
    words = frame[frame["mode"] == "bm25"]
    assert words["share"].isna().all()  # with both lexical legs BM25 only recalls
    start, end = words.iloc[0]["document_spans"][0]
    assert why.document.text[start:end].casefold() == words.iloc[0]["term"]


def test_the_alignment_averages_to_the_colbert_score(why):
    frame = why.alignment_to_pandas()
    assert len(frame) == len(why.alignment.best)
    assert frame["similarity"].mean() == pytest.approx(why.hit.scores["colbert"], abs=1e-5)
    assert str(frame["document_token"].dtype) == "Int64"
    row = frame.iloc[0]
    token = why.query.tokens[row["query_token"]]
    assert token.surface == row["query_label"]
    assert frame["query_token"].isna().tolist()[-1]  # </s> stands for no character


def test_no_terms_and_no_alignment(tiny_bert, monkeypatch):
    plain = M3Encoder.from_pretrained(
        tiny_bert, device="cpu", heads=HeadSpec(sparse=False, colbert=False)
    )
    retriever = HybridRetriever(plain, legs=("dense",))
    retriever.add(DOCUMENTS, ids=["a", "b", "c"])
    why = explain("the page", Hit("a", DOCUMENTS[0], 1.0), retriever=retriever)
    assert why.to_pandas().empty
    with pytest.raises(MissingOutputError, match="no ColBERT head"):
        why.alignment_to_pandas()
    monkeypatch.setattr(checks, "find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match="pandas"):
        why.to_pandas()
