"""What people try from habit on the core's classes, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping

_BOTH = "from m3_retrievers.langchain import {0}, or from m3_retrievers.llama_index import {0}"

# Names of the two adapters, looked for at the top.
IN_FRAMEWORKS: Mapping[str, str] = {
    **{
        name: _BOTH.format(name)
        for name in ("BM25Retriever", "M3EnsembleRetriever", "M3SparseRetriever", "M3VectorStore")
    },
    **{
        name: f"from m3_retrievers.langchain import {name}"
        for name in ("M3ColbertReranker", "M3DocumentIndex", "M3Embeddings", "M3HybridReranker")
    },
    **{
        name: f"from m3_retrievers.llama_index import {name}"
        for name in ("M3ColbertRerank", "M3Embedding", "M3HybridRerank")
    },
}


# What other encoders' methods are called here.
OF_ENCODERS: Mapping[str, str] = {
    "encode": "encode_documents(texts) or encode_queries(texts)",
    "encode_corpus": "encode_documents(texts)",
    "encode_document": "encode_documents(texts)",
    "embed_documents": "encode_documents(texts), or the embeddings of your framework",
    "embed_query": "encode_query(text), or the embeddings of your framework",
    "compute_score": "score_pairs(pairs)",
    "predict": "score_pairs(pairs)",
    "rank": "score_pairs(pairs)",
    "score": "score_pairs(pairs)",
    "similarity": "scoring.dense(a, b), from m3_retrievers import scoring",
    "colbert_score": "scoring.maxsim(a.colbert, b.colbert), from m3_retrievers import scoring",
    "compute_lexical_matching_score": "scoring.lexical(a.sparse, b.sparse), from m3_retrievers "
    "import scoring",
    "convert_id_to_token": "tokenizer.convert_ids_to_tokens(ids)",
    "tokenize": "tokenizer(texts)",
    "dim": "dimension",
    "get_sentence_embedding_dimension": "dimension",
    "max_seq_length": "settings.document_max_length",
    "to": "M3Encoder.from_pretrained(…, device=…)",
}

# The same for what a retriever, a store or an index is asked elsewhere.
OF_RETRIEVERS: Mapping[str, str] = {
    "add_texts": "add(texts, metadata=[…])",
    "add_documents": "add(texts, metadata=[…]), or the M3VectorStore of your framework",
    "insert": "add(texts)",
    "update": "upsert(texts, ids=ids)",
    "remove": "delete(ids)",
    "ids": "index.ids",
    "query": "search(query)",
    "retrieve": "search(query)",
    "invoke": "search(query), or M3EnsembleRetriever(hybrid) of your framework",
    "similarity_search": "search(query)",
    "encode": "encoder.encode_documents(texts)",
    "persist": "save(folder)",
    "save_local": "save(folder)",
    "k": "search(query, k=…)",
    "top_k": "search(query, k=…)",
}
