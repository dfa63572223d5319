"""M3ColbertReranker and M3HybridReranker as document compressors."""

from copy import deepcopy
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document

from m3_retrievers import HybridWeights, M3Encoder
from m3_retrievers.langchain import BM25Retriever, M3ColbertReranker, M3HybridReranker

QUERY = "Where is the river?"


def test_hybrid_scores_are_score_pairs(encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
    weights = HybridWeights(dense=0.4, sparse=0.2, colbert=0.4)
    found = M3HybridReranker(encoder=encoder, weights=weights).compress_documents(documents, QUERY)
    pairs = encoder.score_pairs([(QUERY, d.page_content) for d in documents], weights=weights)
    assert pairs.colbert_sparse_dense is not None
    expected = {str(n): float(s) for n, s in enumerate(pairs.colbert_sparse_dense)}
    assert {d.id: d.metadata["scores"]["hybrid"] for d in found} == pytest.approx(
        expected, abs=1e-5
    )
    assert [d.id for d in found] == sorted(expected, key=lambda id: -expected[id])


def test_colbert_scores_are_score_pairs(
    encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    found = M3ColbertReranker(encoder=encoder).compress_documents(documents, QUERY)
    pairs = encoder.score_pairs([(QUERY, d.page_content) for d in documents])
    assert pairs.colbert is not None
    expected = {str(n): float(s) for n, s in enumerate(pairs.colbert)}
    assert {d.id: d.metadata["relevance_score"] for d in found} == pytest.approx(expected, abs=1e-5)
    assert all(set(d.metadata["scores"]) == {"colbert"} for d in found)


@pytest.fixture(params=[M3ColbertReranker, M3HybridReranker])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_top_n_keeps_the_best(
    kind: Any, encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    everything = kind(encoder=encoder).compress_documents(documents, QUERY)
    assert len(everything) == 6
    assert kind(encoder=encoder, top_n=2).compress_documents(documents, QUERY) == everything[:2]


def test_input_is_not_touched_and_scores_are_kept(kind: Any, encoder: M3Encoder) -> None:
    given = [
        Document(page_content=t, metadata={"tags": ["x"], "scores": {"bm25": 1.0}}) for t in "ab"
    ]
    before = deepcopy(given)
    found = kind(encoder=encoder).compress_documents(given, QUERY)
    for document in found:
        assert document.metadata["scores"]["bm25"] == 1.0
        assert "colbert" in document.metadata["scores"]
        document.metadata["tags"].append("y")
    assert given == before


def test_equal_texts_keep_their_order(kind: Any, encoder: M3Encoder) -> None:
    given = [Document(id=id, page_content="the river") for id in "cab"]
    assert [d.id for d in kind(encoder=encoder).compress_documents(given, QUERY)] == list("cab")


def test_no_documents_give_none(kind: Any, encoder: M3Encoder) -> None:
    assert kind(encoder=encoder).compress_documents([], QUERY) == []


async def test_async_equals_sync(
    kind: Any, encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    reranker = kind(encoder=encoder, top_n=3)
    expected = reranker.compress_documents(documents, QUERY)
    assert await reranker.acompress_documents(documents, QUERY) == expected


@pytest.mark.parametrize("top_n", [0, -2])
def test_top_n_below_one_is_refused(kind: Any, encoder: M3Encoder, top_n: int) -> None:
    with pytest.raises(ValueError, match="top_n"):
        kind(encoder=encoder, top_n=top_n)


async def test_inside_a_contextual_compression_retriever(
    kind: Any, encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    retriever = ContextualCompressionRetriever(
        base_compressor=kind(encoder=encoder, top_n=2),
        base_retriever=BM25Retriever.from_documents(documents, k=6),
    )
    found = retriever.invoke("the river")
    assert len(found) == 2
    assert set(found[0].metadata["scores"]) >= {"bm25", "colbert"}
    assert await retriever.ainvoke("the river") == found
