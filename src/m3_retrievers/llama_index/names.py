"""What people try from habit on this package's LlamaIndex classes, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping

OF_MODULE: Mapping[str, str] = {
    "M3ColbertReranker": "M3ColbertRerank",
    "M3HybridReranker": "M3HybridRerank",
    "M3Embeddings": "M3Embedding",
    "M3SparseEmbeddings": "M3SparseEmbedding",
    "M3Retriever": "M3EnsembleRetriever",
    "EnsembleRetriever": "M3EnsembleRetriever",
    "M3DocumentIndex": "M3VectorStore",
    "HybridRetriever": "from m3_retrievers import HybridRetriever",
    "M3Encoder": "from m3_retrievers import M3Encoder",
}

OF_EMBEDDING: Mapping[str, str] = {
    "embed_documents": "get_text_embedding_batch(texts)",
    "embed_query": "get_query_embedding(text)",
    "encode": "get_text_embedding_batch(texts)",
    "dimension": "encoder.dimension",
}

OF_RETRIEVER: Mapping[str, str] = {
    "query": "retrieve(query), or RetrieverQueryEngine.from_args(retriever, llm=…).query(query)",
    "invoke": "retrieve(query)",
    "search": "retrieve(query)",
    "as_query_engine": "RetrieverQueryEngine.from_args(retriever, llm=…)",
    "as_retriever": "the retriever itself: it is one",
    "top_k": "k",
    "add": "M3VectorStore(retriever.hybrid).add(nodes)",
    "add_documents": "M3VectorStore(retriever.hybrid).add(nodes)",
    "insert_nodes": "M3VectorStore(retriever.hybrid).add(nodes)",
    "delete": "M3VectorStore(retriever.hybrid).delete_nodes(ids)",
    "persist": "M3EnsembleRetriever.save(folder)",
}

OF_STORE: Mapping[str, str] = {
    "save": "persist(folder)",
    "load": "M3VectorStore.from_persist_path(folder, encoder)",
    "upsert": "add(nodes): it replaces those whose id is known",
    "add_documents": "add(documents): documents are nodes",
    "add_texts": "add([Document(text=text) for text in texts])",
    "aadd": "async_add(nodes)",
    "get": "get_nodes(ids)",
    "search": "query(VectorStoreQuery(…)), or M3EnsembleRetriever(store.hybrid).retrieve(query)",
    "similarity_search": "M3EnsembleRetriever(store.hybrid).retrieve(query)",
    "retrieve": "M3EnsembleRetriever(store.hybrid).retrieve(query)",
    "as_retriever": "M3EnsembleRetriever(store.hybrid)",
    "encoder": "hybrid.encoder",
}

OF_RERANKER: Mapping[str, str] = {
    "rerank": "postprocess_nodes(nodes, query_str=…)",
    "compress_documents": "postprocess_nodes(nodes, query_str=…)",
    "predict": "encoder.score_pairs(pairs)",
}
