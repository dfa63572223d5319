"""Scores in the metadata: nested, flat, or not at all, for what reads whole documents."""

import json
from typing import Any

import pytest
from langchain_classic.retrievers import MultiQueryRetriever
from langchain_core.documents import Document
from langchain_core.language_models import FakeListLLM

from m3_retrievers import HybridRetriever, M3Encoder
from m3_retrievers.langchain import (
    BM25Retriever,
    M3ColbertReranker,
    M3DocumentIndex,
    M3EnsembleRetriever,
    M3HybridReranker,
    M3SparseRetriever,
    M3VectorStore,
)

QUERY = "Where is the river?"
QUESTIONS = "Who repaired the clock?\nWhich page matters?"


def plain(metadata: dict[str, Any]) -> bool:
    """Whether a store such as Chroma takes the metadata: values of no depth."""
    return all(isinstance(value, str | int | float | bool) for value in metadata.values())


def makers(encoder: M3Encoder, documents: tuple[Document, ...], scores: Any) -> dict[str, Any]:
    ensemble = M3EnsembleRetriever.from_documents(documents, encoder, k=6, scores=scores)
    options = {"k": 6, "scores": scores}
    nested = M3EnsembleRetriever.from_documents(documents, encoder, k=6)
    return {
        "ensemble": ensemble,
        "reranked": M3EnsembleRetriever.from_documents(
            documents, encoder, reranker=M3HybridReranker(encoder), **options
        ),
        "fused": M3EnsembleRetriever(
            retrievers=[nested, BM25Retriever.from_documents(documents, k=6)], **options
        ),
        "document index": M3DocumentIndex(ensemble.hybrid, **options),
        "sparse": M3SparseRetriever.from_documents(documents, encoder, **options),
        "bm25": BM25Retriever.from_documents(documents, **options),
    }


def test_multi_query_removes_duplicates_where_scores_are_off(
    encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    for name, retriever in makers(encoder, documents, "off").items():
        many = MultiQueryRetriever.from_llm(
            retriever, FakeListLLM(responses=[QUESTIONS]), include_original=True
        )
        found = many.invoke(QUERY)
        assert len(found) == len({document.id for document in found}), name
        assert all(document in documents for document in found), name


def test_flat_scores_are_taken_by_stores_that_refuse_depth(
    encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    for name, retriever in makers(encoder, documents, "flat").items():
        found = retriever.invoke(QUERY)
        assert found, name
        for document in found:
            assert plain(document.metadata), name
            assert any(key.startswith("score_") for key in document.metadata), name
    flat = makers(encoder, documents, "flat")["ensemble"].invoke(QUERY)
    nested = makers(encoder, documents, "nested")["ensemble"].invoke(QUERY)
    for one, other in zip(flat, nested, strict=True):
        scores = other.metadata["scores"]
        assert {f"score_{mode}": score for mode, score in scores.items()}.items() <= (
            one.metadata.items()
        )


def test_nested_is_what_comes_without_asking(
    encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    (best,) = M3EnsembleRetriever.from_documents(documents, encoder, k=1).invoke(QUERY)
    assert set(best.metadata["scores"]) == {"dense", "sparse", "colbert", "hybrid"}
    json.dumps(best.metadata)


@pytest.mark.parametrize("kind", [M3ColbertReranker, M3HybridReranker])
def test_rerankers_show_scores_as_they_are_told(
    kind: Any, encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    off = kind(encoder, scores="off").compress_documents(documents, QUERY)
    assert sorted(off, key=lambda document: str(document.id)) == list(documents)
    for document in kind(encoder, scores="flat").compress_documents(documents, QUERY):
        assert plain(document.metadata)
        assert document.metadata["score_colbert"] <= 1
        assert "relevance_score" in document.metadata


def test_a_store_shows_scores_as_it_is_told(
    encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    store = M3VectorStore.from_documents(documents, encoder, scores="off")
    pairs = store.similarity_search_with_score(QUERY, k=6)
    assert all(document in documents for document, _ in pairs)
    flat = M3VectorStore(store.hybrid, scores="flat").similarity_search_with_score(QUERY, k=6)
    assert [document.metadata["score_hybrid"] for document, _ in flat] == [s for _, s in pairs]


def test_a_rerankers_own_score_is_taken_over(documents: tuple[Document, ...]) -> None:
    from langchain_core.documents import BaseDocumentCompressor

    class Cohere(BaseDocumentCompressor):
        """Writes its score as LangChain's rerankers do."""

        def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> Any:
            return [
                Document(
                    id=document.id,
                    page_content=document.page_content,
                    metadata={**document.metadata, "relevance_score": 1.0 / (n + 1)},
                )
                for n, document in enumerate(reversed(documents))
            ]

    class Silent(BaseDocumentCompressor):
        """Only reorders."""

        def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> Any:
            return list(reversed(documents))

    bm25 = BM25Retriever.from_documents(documents, k=6)
    found = M3EnsembleRetriever(retrievers=[bm25], reranker=Cohere(), k=1).invoke("the river")
    assert found[0].metadata["scores"]["reranker"] == 1.0
    (best,) = M3EnsembleRetriever(retrievers=[bm25], reranker=Cohere(), k=1, scores="off").invoke(
        "the river"
    )
    assert best in documents
    found = M3EnsembleRetriever(retrievers=[bm25], reranker=Silent(), k=1).invoke("the river")
    assert set(found[0].metadata["scores"]) == {"bm25", "fusion"}


def test_a_weighted_sum_reads_the_scores_that_retrievers_show(
    encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    from m3_retrievers import WeightedSum

    bm25 = BM25Retriever.from_documents(documents, k=6)
    ensemble = M3EnsembleRetriever(retrievers=[bm25], fusion=WeightedSum(normalize=None), k=6)
    for document in ensemble.invoke("the river"):
        scores = document.metadata["scores"]
        assert scores["fusion"] == pytest.approx(scores["bm25"])
    hybrid = HybridRetriever(encoder)
    assert M3EnsembleRetriever(hybrid).invoke(QUERY) == []
