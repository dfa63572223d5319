"""How often the model runs for a text, in other people's stores: before and after Encoder.keep.

Each store is filled in its hybrid mode with our dense and sparse embeddings, asked the same
questions, and our reranker stands behind it. A forward hook on the backbone counts the texts of
every pass, as queries and as documents; ``keep=None`` is before, the default is after::

    python benchmarks/forward_passes.py

llama-index-vector-stores-milvus asks for pymilvus below 3, langchain-milvus takes both: where the
four do not stand in one environment, ``--stores`` names those that do, and ``--out`` adds to what
an earlier call wrote.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from common import (
    RESULTS,
    machine,
    standard_library_questions,
    standard_library_texts,
    write_result,
)

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.recent import Keep

CANDIDATES = 4
SPARSE = {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"}
DENSE = {"index_type": "FLAT", "metric_type": "IP"}

# question → texts of the hits
Ask = Callable[[str], list[str]]


class Passes:
    """Counts the texts an encoder's model runs for, by role."""

    def __init__(self, encoder: M3Encoder) -> None:
        self.counts: Counter[str] = Counter()
        role: list[str] = []
        compute = encoder._compute

        def told(texts: Sequence[str], *, query: bool, **options: Any) -> Any:
            role.append("query" if query else "document")
            try:
                return compute(texts, query=query, **options)
            finally:
                role.pop()

        encoder._compute = told  # type: ignore[method-assign]
        encoder.checkpoint.backbone.register_forward_pre_hook(
            lambda _module, _args, options: self.counts.update({role[-1]: len(options["lengths"])}),
            with_kwargs=True,
        )

    def since(self, before: Counter[str]) -> dict[str, int]:
        return {role: self.counts[role] - before[role] for role in ("query", "document")}


@contextmanager
def langchain_qdrant(encoder: M3Encoder, texts: list[str], _folder: Path) -> Iterator[Ask]:
    from langchain_qdrant import QdrantVectorStore, RetrievalMode

    from m3_retrievers.langchain import M3Embeddings, M3SparseEmbeddings

    store = QdrantVectorStore.from_texts(
        texts,
        embedding=M3Embeddings(encoder),
        sparse_embedding=M3SparseEmbeddings(encoder).for_qdrant(),
        retrieval_mode=RetrievalMode.HYBRID,
        location=":memory:",
    )
    yield _langchain(encoder, store)
    store.client.close()


@contextmanager
def langchain_milvus(encoder: M3Encoder, texts: list[str], folder: Path) -> Iterator[Ask]:
    from langchain_milvus import Milvus

    from m3_retrievers.langchain import M3Embeddings, M3SparseEmbeddings

    store = Milvus.from_texts(
        texts,
        embedding=[M3Embeddings(encoder), M3SparseEmbeddings(encoder).for_milvus()],
        vector_field=["dense", "sparse"],
        index_params=[DENSE, SPARSE],
        search_params=[{"metric_type": "IP"}, {"metric_type": "IP"}],
        connection_args={"uri": str(folder / "milvus.db")},
    )
    yield _langchain(encoder, store)
    store.client.close()


def _langchain(encoder: M3Encoder, store: Any) -> Ask:
    from langchain_classic.retrievers import ContextualCompressionRetriever

    from m3_retrievers.langchain import M3HybridReranker

    chain = ContextualCompressionRetriever(
        base_compressor=M3HybridReranker(encoder),
        base_retriever=store.as_retriever(search_kwargs={"k": CANDIDATES}),
    )
    return lambda question: [document.page_content for document in chain.invoke(question)]


@contextmanager
def llama_index_qdrant(encoder: M3Encoder, texts: list[str], _folder: Path) -> Iterator[Ask]:
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    from m3_retrievers.llama_index import M3SparseEmbedding

    client = QdrantClient(":memory:")
    functions = M3SparseEmbedding(encoder=encoder).for_qdrant()
    store = QdrantVectorStore(
        "nodes",
        client=client,
        enable_hybrid=True,
        sparse_doc_fn=functions.documents,
        sparse_query_fn=functions.queries,
    )
    yield _llama_index(encoder, texts, store)
    client.close()


@contextmanager
def llama_index_milvus(encoder: M3Encoder, texts: list[str], folder: Path) -> Iterator[Ask]:
    from llama_index.vector_stores.milvus import MilvusVectorStore

    from m3_retrievers.llama_index import M3SparseEmbedding

    store = MilvusVectorStore(
        uri=str(folder / "milvus.db"),
        dim=encoder.dimension,
        similarity_metric="IP",
        enable_sparse=True,
        sparse_embedding_function=M3SparseEmbedding(encoder=encoder).for_milvus(),
        use_async_client=False,
    )
    yield _llama_index(encoder, texts, store)
    store.client.close()


def _llama_index(encoder: M3Encoder, texts: list[str], store: Any) -> Ask:
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.schema import TextNode

    from m3_retrievers.llama_index import M3Embedding, M3HybridRerank

    index = VectorStoreIndex(
        [],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=M3Embedding(encoder=encoder),
    )
    # without metadata: Milvus's binding hands over the bare text for the sparse row, and the text
    # with its metadata for the dense one, which are two texts then
    index.insert_nodes([TextNode(text=text) for text in texts])
    retriever = index.as_retriever(
        vector_store_query_mode="hybrid", similarity_top_k=CANDIDATES, sparse_top_k=CANDIDATES
    )
    reranker = M3HybridRerank(encoder=encoder)

    def ask(question: str) -> list[str]:
        found = reranker.postprocess_nodes(retriever.retrieve(question), query_str=question)
        return [one.node.get_content() for one in found]

    return ask


STORES = {
    "langchain-qdrant": langchain_qdrant,
    "langchain-milvus": langchain_milvus,
    "llama-index-vector-stores-qdrant": llama_index_qdrant,
    "llama-index-vector-stores-milvus": llama_index_milvus,
}


def counted(
    store: str, encoder: M3Encoder, texts: list[str], questions: list[str], folder: Path
) -> dict[str, Any]:
    """Return the texts run while a store is filled, and while each question is asked."""
    passes = Passes(encoder)
    start = passes.counts.copy()
    with STORES[store](encoder, texts, folder) as ask:
        filled = passes.since(start)
        asked = []
        for question in questions:
            before = passes.counts.copy()
            hits = ask(question)
            asked.append(passes.since(before) | {"hits": len(hits)})
    return {"documents": len(texts), "filling": filled, "questions": asked}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--out", type=Path, default=RESULTS / "forward_passes.json")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # langchain-milvus's own ranker
    warnings.filterwarnings("ignore", message="Payload indexes have no effect")
    texts = standard_library_texts(options.documents)
    first, second = standard_library_questions(2)
    earlier = json.loads(options.out.read_text()) if options.out.is_file() else {}
    result = {
        "machine": machine(threads=torch.get_num_threads()),
        "candidates": CANDIDATES,
        "stores": earlier.get("stores", {}),
    }
    for store in options.stores:
        found = {"version": version(store)}
        for when, keep in {"before": None, "after": Keep()}.items():
            encoder = M3Encoder.from_pretrained(options.model, device="cpu", keep=keep)
            with tempfile.TemporaryDirectory() as folder:
                found[when] = counted(store, encoder, texts, [first, second, first], Path(folder))
        result["stores"][store] = found
        print(store, json.dumps(found), flush=True)
    print(table(result["stores"]))
    write_result(options.out, result)


def table(stores: dict[str, Any]) -> str:
    """Return how many texts the model ran for, before → after."""
    documents = next(iter(stores.values()))["after"]["documents"]
    lines = [
        f"| texts run, before → after | {documents} documents | a question | its {CANDIDATES} "
        "candidates, reranked | the question again | its candidates again |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for store, found in stores.items():
        cells = [
            [
                one["filling"]["document"],
                *(one["questions"][at][role] for at in (0, 2) for role in ("query", "document")),
            ]
            for one in (found["before"], found["after"])
        ]
        shown = (f"{before} → {after}" for before, after in zip(*cells, strict=True))
        lines.append(f"| {store} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
