"""LlamaIndex's QueryBundle as the core takes a question."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from llama_index.core.schema import QueryBundle

from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Query


def prepared(hybrid: HybridRetriever, bundle: QueryBundle) -> str | Query:
    """Return the question; with ``custom_embedding_strs`` their mean is its dense part.

    So HyDE hands over the answers that a language model made up. LlamaIndex's own retrievers
    average in the same way; the mean is brought back to length 1, as weights expect. Term
    weights and token vectors stay those of the question. An ``embedding`` that the bundle
    carries is not read: another retriever's model may have left it there.
    """
    texts = bundle.custom_embedding_strs
    if not texts:
        return bundle.query_str
    query = hybrid.prepare(bundle.query_str)
    if query.representations.dense is None:
        return query
    vectors = hybrid.encoder.encode_queries(texts, outputs=("dense",)).require("dense")
    mean = vectors.mean(axis=0, keepdims=True)  # (1, h)
    length = float(np.linalg.norm(mean))
    dense = (mean / length if length else mean).astype(np.float32)
    return Query(query.text, replace(query.representations, dense=dense))
