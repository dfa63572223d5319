"""M3 retrieval for LangChain: the table of contents. Needs langchain-core and nothing else.

Names load on first use, so that a chain that only reranks does not load a store.
"""

from typing import TYPE_CHECKING

from m3_retrievers.lazy import contents, require_package

if TYPE_CHECKING:
    from m3_retrievers.langchain.document_index import M3DocumentIndex as M3DocumentIndex
    from m3_retrievers.langchain.embeddings import M3Embeddings as M3Embeddings
    from m3_retrievers.langchain.lexical import BM25Retriever as BM25Retriever
    from m3_retrievers.langchain.lexical import M3SparseRetriever as M3SparseRetriever
    from m3_retrievers.langchain.reranker import M3ColbertReranker as M3ColbertReranker
    from m3_retrievers.langchain.reranker import M3HybridReranker as M3HybridReranker
    from m3_retrievers.langchain.retriever import M3EnsembleRetriever as M3EnsembleRetriever
    from m3_retrievers.langchain.sparse import M3SparseEmbeddings as M3SparseEmbeddings
    from m3_retrievers.langchain.store import M3VectorStore as M3VectorStore

_HOMES = {
    "BM25Retriever": "lexical",
    "M3ColbertReranker": "reranker",
    "M3DocumentIndex": "document_index",
    "M3Embeddings": "embeddings",
    "M3EnsembleRetriever": "retriever",
    "M3HybridReranker": "reranker",
    "M3SparseEmbeddings": "sparse",
    "M3SparseRetriever": "lexical",
    "M3VectorStore": "store",
}

__all__ = [
    "BM25Retriever",
    "M3ColbertReranker",
    "M3DocumentIndex",
    "M3Embeddings",
    "M3EnsembleRetriever",
    "M3HybridReranker",
    "M3SparseEmbeddings",
    "M3SparseRetriever",
    "M3VectorStore",
]

require_package(
    "langchain-core", module="langchain_core", extra="langchain", purpose="m3_retrievers.langchain"
)
__getattr__, __dir__ = contents(__name__, _HOMES)
