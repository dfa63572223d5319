"""M3 retrieval for LlamaIndex: the table of contents. Needs llama-index-core and nothing else.

Names load on first use, so that a query engine that only reranks does not load a store.
"""

from typing import TYPE_CHECKING

from m3_retrievers.lazy import contents, require_package

if TYPE_CHECKING:
    from m3_retrievers.llama_index.embeddings import M3Embedding as M3Embedding
    from m3_retrievers.llama_index.lexical import BM25Retriever as BM25Retriever
    from m3_retrievers.llama_index.lexical import M3SparseRetriever as M3SparseRetriever
    from m3_retrievers.llama_index.reranker import M3ColbertRerank as M3ColbertRerank
    from m3_retrievers.llama_index.reranker import M3HybridRerank as M3HybridRerank
    from m3_retrievers.llama_index.retriever import M3EnsembleRetriever as M3EnsembleRetriever
    from m3_retrievers.llama_index.sparse import M3SparseEmbedding as M3SparseEmbedding
    from m3_retrievers.llama_index.store import M3VectorStore as M3VectorStore

_HOMES = {
    "BM25Retriever": "lexical",
    "M3ColbertRerank": "reranker",
    "M3Embedding": "embeddings",
    "M3EnsembleRetriever": "retriever",
    "M3HybridRerank": "reranker",
    "M3SparseEmbedding": "sparse",
    "M3SparseRetriever": "lexical",
    "M3VectorStore": "store",
}

__all__ = [
    "BM25Retriever",
    "M3ColbertRerank",
    "M3Embedding",
    "M3EnsembleRetriever",
    "M3HybridRerank",
    "M3SparseEmbedding",
    "M3SparseRetriever",
    "M3VectorStore",
]

require_package(
    "llama-index-core",
    module="llama_index",
    extra="llama-index",
    purpose="m3_retrievers.llama_index",
)
__getattr__, __dir__ = contents(__name__, _HOMES)
