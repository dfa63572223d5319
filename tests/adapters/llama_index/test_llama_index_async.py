"""Async methods leave the event loop free, and concurrent queries share forward passes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from m3_retrievers import HybridRetriever
from m3_retrievers.llama_index import (
    BM25Retriever,
    M3ColbertRerank,
    M3Embedding,
    M3EnsembleRetriever,
    M3SparseEmbedding,
    M3SparseRetriever,
    M3VectorStore,
)

Start = Callable[[], Awaitable[Any]]
Call = Callable[[Any, list[TextNode]], Start]


def ensemble(encoder: Any, nodes: list[TextNode]) -> Start:
    retriever = M3EnsembleRetriever.from_nodes(nodes, encoder=encoder)
    return lambda: retriever.aretrieve("river")


def others(encoder: Any, nodes: list[TextNode]) -> Start:
    legs = [BM25Retriever.from_nodes(nodes)]
    retriever = M3EnsembleRetriever(retrievers=legs, reranker=M3ColbertRerank(encoder=encoder))
    return lambda: retriever.aretrieve("river")


def sparse(encoder: Any, nodes: list[TextNode]) -> Start:
    retriever = M3SparseRetriever.from_nodes(nodes, encoder=encoder)
    return lambda: retriever.aretrieve("river")


def rerank(encoder: Any, nodes: list[TextNode]) -> Start:
    given = [NodeWithScore(node=node) for node in nodes]
    return lambda: M3ColbertRerank(encoder=encoder).apostprocess_nodes(given, query_str="river")


def store_add(encoder: Any, nodes: list[TextNode]) -> Start:
    store = M3VectorStore(HybridRetriever(encoder))
    return lambda: store.async_add(nodes)


def store_query(encoder: Any, nodes: list[TextNode]) -> Start:
    store = M3VectorStore(HybridRetriever(encoder))
    store.add(nodes)
    query = VectorStoreQuery(query_str="river", mode=VectorStoreQueryMode.HYBRID)
    return lambda: store.aquery(query)


def embed_texts(encoder: Any, nodes: list[TextNode]) -> Start:
    return lambda: M3Embedding(encoder=encoder).aget_text_embedding_batch(["river"])


def embed_query(encoder: Any, nodes: list[TextNode]) -> Start:
    return lambda: M3Embedding(encoder=encoder).aget_query_embedding("river")


def sparse_texts(encoder: Any, nodes: list[TextNode]) -> Start:
    return lambda: M3SparseEmbedding(encoder=encoder).aget_text_embedding_batch(["river"])


def sparse_query(encoder: Any, nodes: list[TextNode]) -> Start:
    return lambda: M3SparseEmbedding(encoder=encoder).aget_query_embedding("river")


CALLS = [
    ensemble,
    others,
    sparse,
    rerank,
    store_add,
    store_query,
    embed_texts,
    embed_query,
    sparse_texts,
    sparse_query,
]


@pytest.mark.parametrize("call", CALLS, ids=[call.__name__ for call in CALLS])
async def test_the_loop_ticks_while_the_model_works(
    call: Call, gated: Any, nodes: list[TextNode]
) -> None:
    start = call(gated, nodes)
    gated.gate.clear()
    running = asyncio.ensure_future(start())
    for _ in range(20):  # a heart that only beats if the call has left the loop
        await asyncio.sleep(0.001)
    assert not running.done()
    gated.gate.set()
    async with asyncio.timeout(60):
        assert await running


async def test_concurrent_queries_share_forward_passes(gated: Any, nodes: list[TextNode]) -> None:
    retriever = M3EnsembleRetriever.from_nodes(nodes, encoder=gated, k=1)
    queries = [node.text for node in nodes[:4]]
    alone = [(await retriever.aretrieve(query))[0].node_id for query in queries]
    passes: list[int] = []

    def slow(*_: Any) -> None:
        passes.append(1)
        if len(passes) == 1:  # long enough for the others to queue up, on a busy machine too
            time.sleep(0.5)

    handle = gated.checkpoint.backbone.register_forward_pre_hook(slow)
    together = await asyncio.gather(*(retriever.aretrieve(query) for query in queries))
    handle.remove()
    assert len(passes) < 4
    assert [found[0].node_id for found in together] == alone
