"""What people try from habit on this package's LangChain classes, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping

OF_MODULE: Mapping[str, str] = {
    "M3ColbertRerank": "M3ColbertReranker",
    "M3HybridRerank": "M3HybridReranker",
    "M3Embedding": "M3Embeddings",
    "M3SparseEmbedding": "M3SparseEmbeddings",
    "M3Retriever": "M3EnsembleRetriever",
    "EnsembleRetriever": "M3EnsembleRetriever",
    "HybridRetriever": "from m3_retrievers import HybridRetriever",
    "M3Encoder": "from m3_retrievers import M3Encoder",
}

OF_EMBEDDINGS: Mapping[str, str] = {
    "encode": "embed_documents(texts)",
    "get_text_embedding": "embed_documents(texts)",
    "get_query_embedding": "embed_query(text)",
    "dimension": "encoder.dimension",
}

OF_ENSEMBLE: Mapping[str, str] = {
    "get_relevant_documents": "invoke(query)",
    "aget_relevant_documents": "ainvoke(query)",
    "retrieve": "invoke(query)",
    "search": "invoke(query)",
    "similarity_search": "invoke(query)",
    "as_retriever": "the retriever itself: it is one",
    "add_documents": "M3VectorStore(retriever.hybrid).add_documents(documents)",
    "add_texts": "M3VectorStore(retriever.hybrid).add_texts(texts)",
    "delete": "M3VectorStore(retriever.hybrid).delete(ids)",
    "vectorstore": "M3VectorStore(retriever.hybrid)",
    "docs": "retriever.hybrid.get(retriever.hybrid.index.ids)",
    "search_kwargs": "invoke(query, k=…, filter=…)",
    "save_local": "save(folder)",
    "persist": "save(folder)",
    "top_k": "k",
}

OF_LEXICAL: Mapping[str, str] = {
    "get_relevant_documents": "invoke(query)",
    "retrieve": "invoke(query)",
    "search": "invoke(query)",
    "as_retriever": "the retriever itself: it is one",
    "docs": "index.get(index.ids)",
    "vectorizer": "index.weighting",
    "add_documents": "M3EnsembleRetriever.from_documents: M3VectorStore(its.hybrid) takes more",
    "save": "M3EnsembleRetriever.from_documents(…).save(folder)",
    "persist": "M3EnsembleRetriever.from_documents(…).save(folder)",
    "top_k": "k",
}

OF_DOCUMENT_INDEX: Mapping[str, str] = {
    "add_documents": "upsert(documents)",
    "get_relevant_documents": "invoke(query)",
    "search": "invoke(query)",
    "similarity_search": "invoke(query)",
    "save": "hybrid.save(folder)",
    "persist": "hybrid.save(folder)",
    "load": "M3DocumentIndex(HybridRetriever.load(folder, encoder))",
    "as_retriever": "the index itself: it is a retriever",
    "top_k": "k",
}

OF_STORE: Mapping[str, str] = {
    "upsert": "add_documents(documents): it replaces those whose id is known",
    "update_document": "add_documents([document], ids=[id])",
    "update_documents": "add_documents(documents, ids=ids)",
    "get": "get_by_ids(ids)",
    "add": "add_documents(documents) or add_texts(texts)",
    "invoke": "as_retriever().invoke(query)",
    "retrieve": "as_retriever().invoke(query)",
    "query": "similarity_search(query)",
    "delete_collection": "delete(store.ids)",
    "clear": "delete(store.ids)",
    "persist": "save(folder)",
    "save_local": "save(folder)",
    "dump": "save(folder)",
    "encoder": "hybrid.encoder",
    "index": "hybrid.index",
}

OF_RERANKER: Mapping[str, str] = {
    "rerank": "compress_documents(documents, query)",
    "postprocess_nodes": "compress_documents(documents, query)",
    "invoke": "compress_documents(documents, query), or M3EnsembleRetriever(…, reranker=…)",
    "predict": "encoder.score_pairs(pairs)",
    "score": "encoder.score_pairs(pairs)",
}
