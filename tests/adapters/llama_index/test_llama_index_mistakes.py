"""What a newcomer types first, where it is not quite right: each message says what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.vector_stores import MetadataFilter, VectorStoreQuery

from m3_retrievers import HybridRetriever, HybridWeights, M3Encoder
from m3_retrievers.errors import FilterError, InputError
from m3_retrievers.llama_index import (
    BM25Retriever,
    M3ColbertRerank,
    M3Embedding,
    M3EnsembleRetriever,
    M3HybridRerank,
    M3SparseEmbedding,
    M3SparseRetriever,
    M3VectorStore,
)

Takes = Callable[[Any, M3Encoder], Any]


@pytest.mark.parametrize(
    "takes_nodes",
    [
        lambda given, encoder: M3EnsembleRetriever.from_nodes(given, encoder=encoder),
        lambda given, encoder: M3SparseRetriever.from_nodes(given, encoder=encoder),
        lambda given, _: BM25Retriever.from_nodes(given),
        lambda given, encoder: M3VectorStore(HybridRetriever(encoder)).add(given),
    ],
)
def test_what_is_no_list_of_nodes(takes_nodes: Takes, encoder: M3Encoder) -> None:
    with pytest.raises(InputError, match=r"got str \('a text'\) at position 0.*Document\(text="):
        takes_nodes(["a text"], encoder)
    with pytest.raises(InputError, match=r"a list of LlamaIndex nodes, got one TextNode.*Wrap it"):
        takes_nodes(TextNode(text="a text"), encoder)
    with pytest.raises(InputError, match=r"NodeWithScore.*take its \.node"):
        takes_nodes([NodeWithScore(node=TextNode(text="a text"))], encoder)


def test_a_text_where_a_query_bundle_belongs(encoder: M3Encoder) -> None:
    found = [NodeWithScore(node=TextNode(text="a"))]
    with pytest.raises(InputError, match=r"got 'the query'. Pass a text as query_str="):
        M3ColbertRerank(encoder=encoder).postprocess_nodes(found, "the query")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [M3Embedding, M3SparseEmbedding, M3ColbertRerank, M3HybridRerank])
def test_options_that_are_not_known_are_refused(kind: Any, encoder: M3Encoder) -> None:
    with pytest.raises(InputError, match="got the option 'top_k', which it does not know"):
        kind(encoder, top_k=3)


def test_components_come_back_from_what_they_write_down(encoder: M3Encoder) -> None:
    made = (
        M3Embedding(encoder=encoder, embed_batch_size=7),
        M3ColbertRerank(encoder=encoder, top_n=2, keep_retrieval_score=True),
        M3HybridRerank(encoder=encoder, weights=HybridWeights(dense=1, sparse=2, colbert=3)),
    )
    for component in made:
        back = type(component).from_dict(component.to_dict(), encoder=encoder)
        assert back.to_dict() == component.to_dict()
        with pytest.raises(TypeError, match="encoder"):
            type(component).from_dict(component.to_dict())
    store = M3VectorStore(HybridRetriever(encoder), is_embedding_query=True)
    back = M3VectorStore.from_dict(store.to_dict(), hybrid=store.hybrid)
    assert back.is_embedding_query
    assert back.stores_text


def test_one_filter_where_filters_belong(encoder: M3Encoder) -> None:
    with pytest.raises(FilterError, match=r"MetadataFilters\(filters=\[…\]\)"):
        M3EnsembleRetriever(
            HybridRetriever(encoder),
            filters=MetadataFilter(key="n", value=1),  # type: ignore[arg-type]
        )


def test_one_id_where_ids_belong(encoder: M3Encoder) -> None:
    store = M3VectorStore(HybridRetriever(encoder))
    for method in (store.get_nodes, store.delete_nodes):
        with pytest.raises(InputError, match="node_ids expects a list of ids, got one string"):
            method("abc")  # type: ignore[arg-type]


def test_k_below_one_is_refused_before_anything_is_encoded(
    encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    with pytest.raises(InputError, match="k expects an integer of at least 1, got 0"):
        M3SparseRetriever.from_nodes(nodes, encoder=encoder, k=0)


def test_retrievers_show_what_they_are(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    bm25 = BM25Retriever.from_nodes(nodes, k=3)
    assert repr(bm25) == f"BM25Retriever({bm25.index!r}, k=3)"
    sparse = M3SparseRetriever.from_nodes(nodes, encoder=encoder)
    assert repr(sparse) == f"M3SparseRetriever({sparse.index!r}, k=4)"


def test_a_storage_context_is_read_back_as_the_readme_says(
    encoder: M3Encoder, nodes: list[TextNode], tmp_path: Path
) -> None:
    store = M3VectorStore(HybridRetriever(encoder))
    context = StorageContext.from_defaults(vector_store=store)
    VectorStoreIndex(nodes, storage_context=context, embed_model=store.embed_model)
    context.persist(str(tmp_path))
    read = M3VectorStore.from_persist_dir(tmp_path, encoder=encoder)
    again = StorageContext.from_defaults(persist_dir=str(tmp_path), vector_store=read)
    index = load_index_from_storage(again, embed_model=read.embed_model)
    (best,) = index.as_retriever(similarity_top_k=1).retrieve(nodes[0].text)
    assert best.node_id == "0"


@pytest.mark.parametrize("given", [[TextNode(text="a")], ["a text"], None])
def test_a_reranker_takes_what_a_retriever_returns(encoder: M3Encoder, given: Any) -> None:
    with pytest.raises(InputError, match=r"NodeWithScore.*NodeWithScore\(node=node\)"):
        M3ColbertRerank(encoder).postprocess_nodes(given, query_str="q")


def test_a_store_is_asked_with_a_query(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    store = M3VectorStore.from_nodes(nodes, encoder)
    with pytest.raises(InputError, match=r"Write VectorStoreQuery\(query_str="):
        store.query("the river")  # type: ignore[arg-type]
    by_name = VectorStoreQuery(query_str="the river", mode="hybrid", similarity_top_k=1)  # type: ignore[arg-type]
    assert len(store.query(by_name).nodes or ()) == 1
    with pytest.raises(InputError, match=r"mode expects one of .*got 'bm25'"):
        store.query(VectorStoreQuery(query_str="q", mode="bm25"))  # type: ignore[arg-type]
    nowhere = VectorStoreQuery(query_embedding=[float("nan")] * 16, similarity_top_k=1)
    with pytest.raises(InputError, match="A vector expects a list of finite numbers"):
        store.query(nowhere)


@pytest.mark.parametrize("id", [None, ["a"]])
def test_what_is_no_id_deletes_nothing(encoder: M3Encoder, id: Any) -> None:
    store = M3VectorStore.from_nodes([TextNode(id_="a", text="no source")], encoder)
    with pytest.raises(InputError, match="the id of one document"):
        store.delete(id)
    assert store.ids == ["a"]


def test_metadata_that_json_cannot_hold(encoder: M3Encoder) -> None:
    node = TextNode(text="a", metadata={"n": object()})
    with pytest.raises(InputError, match="metadata JSON can hold"):
        M3EnsembleRetriever.from_nodes([node], encoder)
