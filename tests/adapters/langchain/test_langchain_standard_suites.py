"""LangChain's own standard suites, with nothing overridden."""

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import DocumentIndex
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.integration_tests.indexer import (
    AsyncDocumentIndexTestSuite,
    DocumentIndexerTestSuite,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from m3_retrievers import HybridRetriever, M3Encoder
from m3_retrievers.langchain import (
    BM25Retriever,
    M3DocumentIndex,
    M3Embeddings,
    M3EnsembleRetriever,
    M3HybridReranker,
    M3SparseRetriever,
    M3VectorStore,
)


class EmbeddingsOverTinyModel:
    @pytest.fixture(autouse=True)
    def _encoder(self, encoder: M3Encoder) -> None:
        self.encoder = encoder

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return M3Embeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"encoder": self.encoder}


class TestEmbeddingsUnit(EmbeddingsOverTinyModel, EmbeddingsUnitTests):
    pass


class TestEmbeddingsIntegration(EmbeddingsOverTinyModel, EmbeddingsIntegrationTests):
    pass


class RetrieverOverSixDocuments:
    params: dict[str, Any]

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return self.params

    @property
    def retriever_query_example(self) -> str:
        return "Where is the river, and who is the librarian?"


class TestEnsembleOverOneIndex(RetrieverOverSixDocuments, RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _params(self, encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
        self.params = {
            "hybrid": M3EnsembleRetriever.from_documents(documents, encoder=encoder).hybrid
        }

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return M3EnsembleRetriever


class TestEnsembleOfForeignLegs(RetrieverOverSixDocuments, RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _params(self, encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
        store = InMemoryVectorStore(M3Embeddings(encoder))
        store.add_documents(list(documents))
        self.params = {
            "retrievers": [store.as_retriever(), BM25Retriever.from_documents(documents)],
            "reranker": M3HybridReranker(encoder=encoder),
        }

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return M3EnsembleRetriever


class TestSparse(RetrieverOverSixDocuments, RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _params(self, encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
        made = M3SparseRetriever.from_documents(documents, encoder=encoder)
        self.params = {"index": made.index, "encoder": encoder}

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return M3SparseRetriever


class TestBM25(RetrieverOverSixDocuments, RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _params(self, documents: tuple[Document, ...]) -> None:
        self.params = {"index": BM25Retriever.from_documents(documents).index}

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return BM25Retriever


class TestDocumentIndexAsRetriever(RetrieverOverSixDocuments, RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _params(self, encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
        hybrid = HybridRetriever(encoder)
        M3DocumentIndex(hybrid=hybrid).upsert(documents)
        self.params = {"hybrid": hybrid}

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return M3DocumentIndex


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, encoder: M3Encoder) -> VectorStore:
        return M3VectorStore(HybridRetriever(encoder))


class TestDocumentIndex(DocumentIndexerTestSuite):
    @pytest.fixture
    def index(self, encoder: M3Encoder) -> DocumentIndex:
        return M3DocumentIndex(hybrid=HybridRetriever(encoder))


class TestDocumentIndexAsync(AsyncDocumentIndexTestSuite):
    @pytest.fixture
    def index(self, encoder: M3Encoder) -> DocumentIndex:
        return M3DocumentIndex(hybrid=HybridRetriever(encoder))
