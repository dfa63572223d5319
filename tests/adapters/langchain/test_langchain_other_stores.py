"""M3's term weights inside the real langchain-milvus (Milvus Lite) and langchain-qdrant."""

import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_milvus import Milvus
from langchain_milvus.utils.sparse import BaseSparseEmbedding
from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings, SparseVector

from m3_retrievers import M3Encoder
from m3_retrievers.errors import MissingExtraError
from m3_retrievers.langchain import M3Embeddings, M3SparseEmbeddings, M3SparseRetriever

pytestmark = pytest.mark.slow

QUERY = "the river and the librarian"
SPARSE_INDEX = {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"}
DENSE_INDEX = {"index_type": "FLAT", "metric_type": "IP"}


@pytest.fixture
def texts(documents: tuple[Document, ...]) -> list[str]:
    """Six texts and an empty one, which has no term weight at all."""
    return [*(document.page_content for document in documents), ""]


@pytest.fixture
def expected(encoder: M3Encoder, texts: list[str]) -> list[tuple[str, Any]]:
    found = M3SparseRetriever.from_texts(texts, encoder=encoder, k=9).invoke(QUERY)
    assert 3 <= len(found) < 7
    return [
        (doc.page_content, pytest.approx(doc.metadata["scores"]["sparse"], abs=1e-4))
        for doc in found
    ]


def test_rows_are_the_encoders(encoder: M3Encoder, texts: list[str]) -> None:
    sparse = M3SparseEmbeddings(encoder)
    rows = encoder.encode_documents(texts, outputs=("sparse",)).to_dicts()
    assert rows[-1] == {}
    assert sparse.embed_documents(texts) == rows
    assert sparse.embed_query("") == {}
    assert [vector.indices for vector in sparse.for_qdrant().embed_documents(texts)] == [
        list(row) for row in rows
    ]
    assert sparse.for_milvus().embed_documents(texts)[:-1] == rows[:-1]


async def test_async_rows_equal_sync_rows(encoder: M3Encoder, texts: list[str]) -> None:
    sparse = M3SparseEmbeddings(encoder)
    assert await sparse.aembed_documents(texts) == sparse.embed_documents(texts)
    for made in (sparse.for_milvus(), sparse.for_qdrant()):
        assert await made.aembed_documents(texts) == made.embed_documents(texts)
        assert await made.aembed_query(QUERY) == made.embed_query(QUERY)


def test_each_is_what_its_store_asks_for(encoder: M3Encoder) -> None:
    sparse = M3SparseEmbeddings(encoder)
    assert isinstance(sparse.for_milvus(), BaseSparseEmbedding)
    assert isinstance(sparse.for_qdrant(), SparseEmbeddings)
    assert sparse.for_qdrant().embed_query("") == SparseVector(indices=[], values=[])


@pytest.mark.parametrize("store", ["milvus", "qdrant"])
def test_without_the_package_the_error_says_how_to_get_it(
    encoder: M3Encoder, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.setitem(sys.modules, f"langchain_{store}", None)
    with pytest.raises(MissingExtraError, match=rf"m3-retrievers\[langchain-{store}\]"):
        getattr(M3SparseEmbeddings(encoder), f"for_{store}")()


def test_milvus_ranks_by_the_same_scores(
    encoder: M3Encoder, texts: list[str], expected: list[tuple[str, Any]], tmp_path: Path
) -> None:
    store = Milvus.from_texts(
        texts,
        embedding=M3SparseEmbeddings(encoder).for_milvus(),
        index_params=SPARSE_INDEX,
        search_params={"metric_type": "IP"},
        connection_args={"uri": str(tmp_path / "milvus.db")},
    )
    found = store.similarity_search_with_score(QUERY, k=9)
    assert [(doc.page_content, score) for doc, score in found] == expected
    assert store.similarity_search("", k=9) == []
    store.client.close()


# langchain-milvus 0.4 warns about its own default ranker at every hybrid search
@pytest.mark.filterwarnings("ignore:The 'ranker_type' and 'ranker_params':DeprecationWarning")
def test_milvus_takes_dense_and_sparse_together(
    encoder: M3Encoder, texts: list[str], tmp_path: Path
) -> None:
    store = Milvus.from_texts(
        texts,
        embedding=[M3Embeddings(encoder), M3SparseEmbeddings(encoder).for_milvus()],
        vector_field=["dense", "sparse"],
        index_params=[DENSE_INDEX, SPARSE_INDEX],
        search_params=[{"metric_type": "IP"}, {"metric_type": "IP"}],
        connection_args={"uri": str(tmp_path / "milvus.db")},
    )
    assert store.similarity_search(texts[1], k=1)[0].page_content == texts[1]
    store.client.close()


def test_qdrant_ranks_by_the_same_scores(
    encoder: M3Encoder, texts: list[str], expected: list[tuple[str, Any]]
) -> None:
    store = QdrantVectorStore.from_texts(
        texts,
        sparse_embedding=M3SparseEmbeddings(encoder).for_qdrant(),
        retrieval_mode=RetrievalMode.SPARSE,
        location=":memory:",
    )
    found = store.similarity_search_with_score(QUERY, k=9)
    assert [(doc.page_content, score) for doc, score in found] == expected
    assert store.similarity_search("", k=9) == []


def test_qdrant_takes_dense_and_sparse_together(encoder: M3Encoder, texts: list[str]) -> None:
    store = QdrantVectorStore.from_texts(
        texts,
        embedding=M3Embeddings(encoder),
        sparse_embedding=M3SparseEmbeddings(encoder).for_qdrant(),
        retrieval_mode=RetrievalMode.HYBRID,
        location=":memory:",
    )
    assert store.similarity_search(texts[1], k=1)[0].page_content == texts[1]
