"""M3SparseRetriever and BM25Retriever."""

from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from rank_bm25 import BM25Okapi

from m3_retrievers import BM25, M3Encoder
from m3_retrievers.errors import DuplicateIdError, InputError
from m3_retrievers.langchain import BM25Retriever, M3SparseRetriever


def test_bm25_scores_are_rank_bm25s(documents: tuple[Document, ...]) -> None:
    bm25 = BM25(idf="rank_bm25")
    retriever = BM25Retriever.from_documents(documents, bm25=bm25, k=6)
    tokens = [bm25.tokenizer(doc.page_content) for doc in documents]
    expected = BM25Okapi(tokens).get_scores(bm25.tokenizer("river bridge librarian"))
    found = retriever.invoke("river bridge librarian")
    assert sorted(int(doc.id or "") for doc in found) == np.flatnonzero(expected).tolist()
    for doc in found:
        score = expected[int(doc.id or "")]
        assert doc.metadata["scores"] == {"bm25": pytest.approx(score, abs=1e-6)}


def test_sparse_scores_are_products_of_term_weights(
    encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    retriever = M3SparseRetriever.from_documents(documents, encoder=encoder, k=6)
    query = "the river and the librarian"
    asked = encoder.encode_query(query, outputs=("sparse",)).to_dicts()[0]
    rows = encoder.encode_documents(
        [doc.page_content for doc in documents], outputs=("sparse",)
    ).to_dicts()
    expected = {
        str(n): sum(weight * row.get(term, 0.0) for term, weight in asked.items())
        for n, row in enumerate(rows)
    }
    found = retriever.invoke(query)
    order = sorted((id for id in expected if expected[id] > 0), key=lambda id: -expected[id])
    assert [doc.id for doc in found] == order
    for doc in found:
        score = expected[doc.id or ""]
        assert doc.metadata["scores"] == {"sparse": pytest.approx(score, abs=1e-5)}


@pytest.fixture(params=["sparse", "bm25"])
def retriever(
    request: pytest.FixtureRequest, encoder: M3Encoder, documents: tuple[Document, ...]
) -> Any:
    if request.param == "bm25":
        return BM25Retriever.from_documents(documents)
    return M3SparseRetriever.from_documents(documents, encoder=encoder)


def test_k_and_filter_hold_for_one_call(retriever: Any) -> None:
    assert len(retriever.invoke("the river", k=1)) == 1
    found = retriever.invoke("the river", k=6, filter={"even": True})
    assert {doc.metadata["even"] for doc in found} == {True}


async def test_async_equals_sync(retriever: Any) -> None:
    found = retriever.invoke("the river", k=2, filter={"even": True})
    assert await retriever.ainvoke("the river", k=2, filter={"even": True}) == found


def test_k_below_one_is_refused(retriever: Any) -> None:
    with pytest.raises(InputError, match="at least 1"):
        retriever.invoke("the river", k=0)


def test_a_query_without_terms_finds_nothing(retriever: Any) -> None:
    assert retriever.invoke("") == []


def test_no_documents_give_no_results(encoder: M3Encoder) -> None:
    assert BM25Retriever.from_texts([]).invoke("river") == []
    assert M3SparseRetriever.from_texts([], encoder=encoder).invoke("river") == []


def test_from_texts_keeps_ids_and_metadata(encoder: M3Encoder) -> None:
    given: dict[str, Any] = {"metadatas": [{"n": 1}, {"n": 2}], "ids": ["a", "b"]}
    texts = ["the river", "the clock"]
    for retriever in (
        BM25Retriever.from_texts(texts, **given),
        M3SparseRetriever.from_texts(texts, encoder=encoder, **given),
    ):
        best = retriever.invoke("river")[0]
        assert (best.id, best.page_content, best.metadata["n"]) == ("a", "the river", 1)


def test_ids_given_twice_are_refused() -> None:
    with pytest.raises(DuplicateIdError):
        BM25Retriever.from_texts(["x", "y"], ids=["a", "a"])


def test_trace_names_the_model(retriever: Any, runs: Any) -> None:
    retriever.invoke("river", {"callbacks": [runs]})
    metadata = runs.started[runs.root]["metadata"]
    assert metadata["ls_vector_store_provider"] == "LocalIndex"
    assert ("ls_embedding_model" in metadata) == isinstance(retriever, M3SparseRetriever)
