"""M3's term weights inside the real llama-index-vector-stores-milvus (Lite) and -qdrant.

The two bindings are not part of the development environment: the Milvus one holds an older
pymilvus than langchain-milvus asks for. Where one is installed, its tests run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from m3_retrievers import M3Encoder
from m3_retrievers.llama_index import M3Embedding, M3SparseEmbedding, M3SparseRetriever

QUERY = "the river and the librarian"

# qdrant-client warns that its local mode needs no payload index, which the binding makes
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")


@pytest.fixture
def expected(encoder: M3Encoder, nodes: list[TextNode]) -> dict[str, float]:
    found = M3SparseRetriever.from_nodes(nodes, encoder=encoder, k=9).retrieve(QUERY)
    assert 3 <= len(found) < 7
    return {one.node_id: one.metadata["scores"]["sparse"] for one in found}


@pytest.fixture
def six_and_nothing(nodes: list[TextNode]) -> list[TextNode]:
    """Six nodes and one whose only character has no term weight at all."""
    return [*nodes, TextNode(id_="6", text=" ")]


def fill(
    store: BasePydanticVectorStore, encoder: M3Encoder, nodes: list[TextNode]
) -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex([], storage_context=context, embed_model=M3Embedding(encoder=encoder))
    index.insert_nodes(nodes)
    return index


@pytest.fixture
def function(encoder: M3Encoder) -> Any:
    pytest.importorskip(
        "llama_index.vector_stores.milvus", reason="needs llama-index-vector-stores-milvus"
    )
    return M3SparseEmbedding(encoder=encoder).for_milvus()


@pytest.fixture
def milvus(encoder: M3Encoder, function: Any, tmp_path: Path) -> Iterator[Any]:
    from llama_index.vector_stores.milvus import MilvusVectorStore

    store = MilvusVectorStore(
        uri=str(tmp_path / "milvus.db"),
        dim=encoder.dimension,
        similarity_metric="IP",
        enable_sparse=True,
        sparse_embedding_function=function,
        use_async_client=False,
    )
    yield store
    store.client.close()


@pytest.fixture
def qdrant(encoder: M3Encoder) -> Any:
    reason = "needs llama-index-vector-stores-qdrant"
    binding = pytest.importorskip("llama_index.vector_stores.qdrant", reason=reason)
    client = pytest.importorskip("qdrant_client", reason=reason).QdrantClient(":memory:")
    functions = M3SparseEmbedding(encoder=encoder).for_qdrant()
    return binding.QdrantVectorStore(
        "nodes",
        client=client,
        enable_hybrid=True,
        sparse_doc_fn=functions.documents,
        sparse_query_fn=functions.queries,
    )


def test_milvus_takes_the_function(
    encoder: M3Encoder, function: Any, nodes: list[TextNode]
) -> None:
    from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction

    assert isinstance(function, BaseSparseEmbeddingFunction)
    texts = [node.text for node in nodes]
    rows = encoder.encode_documents(texts, outputs=("sparse",)).to_dicts()
    assert function.encode_documents(texts) == rows
    (nothing,), (no_question,) = function.encode_documents([""]), function.encode_queries([""])
    assert nothing.keys() != no_question.keys()
    assert not nothing.keys() & {term for row in rows for term in row}


async def test_milvus_async_rows_equal_sync_rows(function: Any, nodes: list[TextNode]) -> None:
    texts = [node.text for node in nodes]
    assert await function.async_encode_documents(texts) == function.encode_documents(texts)
    assert await function.async_encode_queries(texts) == function.encode_queries(texts)


def test_milvus_holds_the_exact_weights_and_takes_both_vectors(
    encoder: M3Encoder,
    function: Any,
    milvus: Any,
    six_and_nothing: list[TextNode],
    expected: dict[str, float],
) -> None:
    index = fill(milvus, encoder, six_and_nothing)
    # the binding's own sparse mode drops a fifth of the query's weights, and Lite refuses that
    (found,) = milvus.client.search(
        milvus.collection_name,
        data=function.encode_queries([QUERY]),
        anns_field="sparse_embedding",
        limit=9,
        search_params={"metric_type": "IP"},
    )
    assert [one["id"] for one in found] == list(expected)
    assert [one["distance"] for one in found] == pytest.approx(list(expected.values()), abs=1e-4)
    retriever = index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=1)
    assert [one.node_id for one in retriever.retrieve(six_and_nothing[1].text)] == ["1"]


def test_qdrant_ranks_by_the_same_scores(
    encoder: M3Encoder, qdrant: Any, six_and_nothing: list[TextNode], expected: dict[str, float]
) -> None:
    fill(
        qdrant,
        encoder,
        [TextNode(id_=f"{int(n.node_id):032x}", text=n.text) for n in six_and_nothing],
    )
    result = qdrant.query(
        VectorStoreQuery(
            query_embedding=M3Embedding(encoder=encoder).get_query_embedding(QUERY),
            query_str=QUERY,
            similarity_top_k=9,
            mode=VectorStoreQueryMode.SPARSE,
        )
    )
    found = [str(int(id.replace("-", ""), 16)) for id in result.ids]
    assert found == list(expected)
    assert result.similarities == pytest.approx(list(expected.values()), abs=1e-4)


def test_qdrant_takes_dense_and_sparse_together(
    encoder: M3Encoder, qdrant: Any, nodes: list[TextNode]
) -> None:
    index = fill(qdrant, encoder, [TextNode(text=node.text) for node in nodes])
    retriever = index.as_retriever(
        vector_store_query_mode="hybrid", similarity_top_k=1, sparse_top_k=3
    )
    assert [one.text for one in retriever.retrieve(nodes[1].text)] == [nodes[1].text]
