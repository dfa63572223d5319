"""Async methods leave the event loop free, and concurrent queries share forward passes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.documents import Document

from m3_retrievers import HybridRetriever
from m3_retrievers.langchain import (
    BM25Retriever,
    M3ColbertReranker,
    M3DocumentIndex,
    M3Embeddings,
    M3EnsembleRetriever,
    M3SparseEmbeddings,
    M3SparseRetriever,
    M3VectorStore,
)

Call = Callable[[Any, tuple[Document, ...]], Callable[[], Awaitable[Any]]]


def ensemble(encoder: Any, documents: tuple[Document, ...]) -> Callable[[], Awaitable[Any]]:
    retriever = M3EnsembleRetriever.from_documents(documents, encoder=encoder)
    return lambda: retriever.ainvoke("river")


def others(encoder: Any, documents: tuple[Document, ...]) -> Callable[[], Awaitable[Any]]:
    legs = [BM25Retriever.from_documents(documents)]
    reranker = M3ColbertReranker(encoder=encoder)
    retriever = M3EnsembleRetriever(retrievers=legs, reranker=reranker)
    return lambda: retriever.ainvoke("river")


def sparse(encoder: Any, documents: tuple[Document, ...]) -> Callable[[], Awaitable[Any]]:
    retriever = M3SparseRetriever.from_documents(documents, encoder=encoder)
    return lambda: retriever.ainvoke("river")


def document_index(encoder: Any, documents: tuple[Document, ...]) -> Callable[[], Awaitable[Any]]:
    index = M3DocumentIndex(hybrid=HybridRetriever(encoder))
    return lambda: index.aupsert(documents)


def store_add(encoder: Any, documents: tuple[Document, ...]) -> Callable[[], Awaitable[Any]]:
    store = M3VectorStore(HybridRetriever(encoder))
    return lambda: store.aadd_documents(list(documents))


def store_search(encoder: Any, documents: tuple[Document, ...]) -> Callable[[], Awaitable[Any]]:
    store = M3VectorStore(HybridRetriever(encoder))
    store.add_documents(list(documents))
    return lambda: store.asimilarity_search("river", k=2)


def embeddings(encoder: Any, documents: tuple[Document, ...]) -> Callable[[], Awaitable[Any]]:
    return lambda: M3Embeddings(encoder).aembed_documents(["river"])


def sparse_embeddings(
    encoder: Any, documents: tuple[Document, ...]
) -> Callable[[], Awaitable[Any]]:
    return lambda: M3SparseEmbeddings(encoder).aembed_query("river")


CALLS = [
    ensemble,
    others,
    sparse,
    document_index,
    store_add,
    store_search,
    embeddings,
    sparse_embeddings,
]


@pytest.mark.parametrize("call", CALLS, ids=[call.__name__ for call in CALLS])
async def test_the_loop_ticks_while_the_model_works(
    call: Call, gated: Any, documents: tuple[Document, ...]
) -> None:
    start = call(gated, documents)
    gated.gate.clear()
    running = asyncio.ensure_future(start())
    for _ in range(20):  # a heart that only beats if the call has left the loop
        await asyncio.sleep(0.001)
    assert not running.done()
    gated.gate.set()
    async with asyncio.timeout(60):
        assert await running


async def test_concurrent_queries_share_forward_passes(
    gated: Any, documents: tuple[Document, ...]
) -> None:
    retriever = M3EnsembleRetriever.from_documents(documents, encoder=gated, k=1)
    alone = [(await retriever.ainvoke(doc.page_content))[0].id for doc in documents[:4]]
    passes: list[int] = []

    def slow(*_: Any) -> None:
        passes.append(1)
        if len(passes) == 1:  # long enough for the others to queue up, on a busy machine too
            time.sleep(0.5)

    handle = gated.checkpoint.backbone.register_forward_pre_hook(slow)
    together = await asyncio.gather(*(retriever.ainvoke(doc.page_content) for doc in documents[:4]))
    handle.remove()
    assert len(passes) < 4
    assert [found[0].id for found in together] == alone


async def test_asyncios_own_threads_stay_free(
    encoder: Any, documents: tuple[Document, ...]
) -> None:
    loop = asyncio.get_running_loop()
    few = ThreadPoolExecutor(1)
    loop.set_default_executor(few)
    few.shutdown()  # whoever asks for one of its threads gets an error
    store = M3VectorStore.from_documents(documents, encoder)
    bm25 = BM25Retriever.from_documents(documents)
    ensemble = M3EnsembleRetriever(retrievers=[bm25], reranker=M3ColbertReranker(encoder))
    waiting = [
        M3EnsembleRetriever(store.hybrid).ainvoke("river"),
        ensemble.ainvoke("river"),
        store.asimilarity_search("river"),
        M3Embeddings(encoder).aembed_query("river"),
        M3SparseEmbeddings(encoder).aembed_query("river"),
    ]
    assert all(await asyncio.gather(*waiting))
