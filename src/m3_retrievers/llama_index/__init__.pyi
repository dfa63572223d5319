from .embeddings import M3Embedding as M3Embedding
from .lexical import BM25Retriever as BM25Retriever
from .lexical import M3SparseRetriever as M3SparseRetriever
from .reranker import M3ColbertRerank as M3ColbertRerank
from .reranker import M3HybridRerank as M3HybridRerank
from .retriever import M3EnsembleRetriever as M3EnsembleRetriever
from .sparse import M3SparseEmbedding as M3SparseEmbedding
from .store import M3VectorStore as M3VectorStore
