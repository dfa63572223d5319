"""What people type from habit, and what LlamaIndex does with retrievers: HyDE, IndexNodes, MMR."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.schema import IndexNode, QueryBundle, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from m3_retrievers import HybridRetriever, M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.llama_index import (
    BM25Retriever,
    M3Embedding,
    M3EnsembleRetriever,
    M3VectorStore,
)

QUERY = "Where is the river?"
MADE_UP = ["She repaired the clock.", "A librarian finds the page."]


@pytest.fixture
def retriever(encoder: M3Encoder, nodes: list[TextNode]) -> M3EnsembleRetriever:
    return M3EnsembleRetriever.from_nodes(nodes, encoder, k=6)


def ids(found: list[Any]) -> list[str]:
    return [one.node_id for one in found]


async def test_k_by_either_name_when_made_and_per_call(
    encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    for made in (
        M3EnsembleRetriever.from_nodes(nodes, encoder, similarity_top_k=2),
        BM25Retriever.from_nodes(nodes, k=2, similarity_top_k=2),
    ):
        assert made.k == made.similarity_top_k == 2
        everything = ids(made.retrieve("the river", k=6))
        assert ids(made.retrieve("the river")) == everything[:2]
        assert ids(await made.aretrieve("the river", similarity_top_k=1)) == everything[:1]
        assert made.k == 2
        made.similarity_top_k = 1
        assert len(made.retrieve("the river")) == 1
        with pytest.raises(InputError, match="two names for one number, got 1 and 2"):
            made.retrieve("the river", k=1, similarity_top_k=2)
        with pytest.raises(InputError, match="similarity_top_k expects an integer"):
            made.similarity_top_k = 0


async def test_filters_of_one_call_stand_beside_the_retrievers_own(
    encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    even = MetadataFilters(filters=[MetadataFilter(key="even", value="yes")])
    made = M3EnsembleRetriever.from_nodes(nodes, encoder, k=6, filters=even)
    assert {one.metadata["n"] for one in made.retrieve(QUERY, filters={"n": {"$gt": 0}})} == {2, 4}
    found = await made.aretrieve(QUERY, filters={"n": {"$lt": 3}})
    assert {one.metadata["n"] for one in found} == {0, 2}
    assert len(made.retrieve(QUERY)) == 3


def test_a_call_with_options_is_one_retrieval_in_a_trace(
    retriever: M3EnsembleRetriever, events: Any
) -> None:
    from llama_index.core.instrumentation.events.retrieval import RetrievalStartEvent

    retriever.retrieve(QUERY, k=1)
    assert len(events.of(RetrievalStartEvent)) == 3  # itself and two legs


async def test_hyde_makes_the_dense_part_of_the_query(
    retriever: M3EnsembleRetriever, encoder: M3Encoder
) -> None:
    vectors = encoder.encode_queries(MADE_UP, outputs=("dense",)).require("dense")
    mean = vectors.mean(axis=0)
    mean /= np.linalg.norm(mean)
    assert retriever.hybrid is not None
    stored = retriever.hybrid.vectors(list("012345"), outputs=("dense",)).require("dense")
    bundle = QueryBundle(QUERY, custom_embedding_strs=MADE_UP)
    plain = {one.node_id: one.metadata["scores"] for one in retriever.retrieve(QUERY)}
    for found in (retriever.retrieve(bundle), await retriever.aretrieve(bundle)):
        assert len(found) == 6
        for one in found:
            scores = one.metadata["scores"]
            expected = float(stored[int(one.node_id)] @ mean)
            assert scores["dense"] == pytest.approx(expected, abs=1e-5)
            for mode in ("sparse", "colbert"):
                assert scores[mode] == pytest.approx(plain[one.node_id][mode], abs=1e-5)
    assert ids(retriever.retrieve(QueryBundle(QUERY, custom_embedding_strs=[]))) == ids(
        retriever.retrieve(QUERY)
    )


def test_hyde_without_a_dense_part_is_the_question(
    encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    from m3_retrievers import HybridWeights

    lexical = M3EnsembleRetriever.from_nodes(
        nodes, encoder, legs=["sparse"], weights=HybridWeights(dense=0, sparse=1, colbert=0)
    )
    bundle = QueryBundle(QUERY, custom_embedding_strs=MADE_UP)
    assert ids(lexical.retrieve(bundle)) == ids(lexical.retrieve(QUERY))


def test_an_index_node_leads_to_its_object(
    encoder: M3Encoder, nodes: list[TextNode], tmp_path: Path
) -> None:
    inner = BM25Retriever.from_nodes(nodes[:3], k=1)
    pointer = IndexNode(text="About rivers and bridges", index_id="rivers", obj=inner)
    other = TextNode(id_="other", text="About clocks and tweezers")
    for made in (
        M3EnsembleRetriever.from_nodes([pointer, other], encoder, k=1),
        BM25Retriever.from_nodes([pointer, other], k=1),
    ):
        assert ids(made.retrieve("rivers and bridges")) == ids(inner.retrieve("rivers and bridges"))
    assert pointer.obj is inner
    made = M3EnsembleRetriever.from_nodes([pointer, other], encoder, k=1)
    made.save(tmp_path / "index")
    bare = M3EnsembleRetriever.load(tmp_path / "index", encoder, k=1)
    assert bare.retrieve("rivers and bridges")[0].node.index_id == "rivers"  # type: ignore[attr-defined]
    led = M3EnsembleRetriever.load(tmp_path / "index", encoder, k=1, objects=[pointer])
    assert ids(led.retrieve("rivers and bridges")) == ids(inner.retrieve("rivers and bridges"))


def test_an_index_node_with_a_node_keeps_it(encoder: M3Encoder) -> None:
    parent = TextNode(id_="parent", text="The whole chapter.")
    child = IndexNode(text="the river", index_id="parent", obj=parent)
    (found,) = M3EnsembleRetriever.from_nodes([child], encoder).retrieve(QUERY)
    assert (found.node_id, found.text) == ("parent", "The whole chapter.")


def test_a_store_says_where_an_index_nodes_object_can_live(
    encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    pointer = IndexNode(text="rivers", index_id="rivers", obj=BM25Retriever.from_nodes(nodes, k=1))
    store = M3VectorStore(encoder)
    with pytest.raises(InputError, match=r"'rivers' with a BM25Retriever.*objects=\[…\]"):
        store.add([pointer])
    index = VectorStoreIndex(
        objects=[pointer],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=store.embed_model,
    )
    assert len(index.as_retriever().retrieve("the river")) == 1


def test_an_empty_store_is_not_passed_over(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    store = M3VectorStore(encoder)
    assert len(store) == 0
    context = StorageContext.from_defaults(vector_store=store)
    assert context.vector_store is store
    VectorStoreIndex(nodes, storage_context=context, embed_model=store.embed_model)
    assert store.ids == list("012345")


def test_read_without_the_store_storage_says_how_to_read_it(
    encoder: M3Encoder, nodes: list[TextNode], tmp_path: Path
) -> None:
    store = M3VectorStore.from_nodes(nodes, encoder)
    StorageContext.from_defaults(vector_store=store).persist(str(tmp_path))
    with pytest.raises(ValueError, match=r"M3VectorStore\.from_persist_dir\(…, encoder=…\)"):
        StorageContext.from_defaults(persist_dir=str(tmp_path))
    read = M3VectorStore.from_persist_dir(tmp_path, encoder=encoder.name)
    assert read.ids == store.ids
    StorageContext.from_defaults(vector_store=read).persist(str(tmp_path))  # and once more
    assert M3VectorStore.from_persist_dir(tmp_path, encoder=encoder).ids == store.ids
    again = StorageContext.from_defaults(persist_dir=str(tmp_path), vector_store=read)
    assert again.vector_store is read
    with pytest.raises(ValueError, match="No index"):
        load_index_from_storage(again)


def test_deleting_by_filter_and_by_id(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    store = M3VectorStore.from_nodes(nodes, encoder)
    store.delete_nodes(filters={"n": {"$gte": 4}})
    assert store.ids == list("0123")
    store.delete_nodes(["0", "1"], filters={"even": "no"})
    assert store.ids == list("023")
    with pytest.raises(InputError, match="node_ids or filters"):
        store.delete_nodes()


def test_mmr_finds_what_differs(encoder: M3Encoder) -> None:
    same = [TextNode(id_=f"same{n}", text="The river rose.") for n in range(3)]
    other = TextNode(id_="other", text="A clock repaired with tweezers.")
    store = M3VectorStore.from_nodes([*same, other], encoder)
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
    near = index.as_retriever(similarity_top_k=2, vector_store_query_mode="hybrid")
    diverse = index.as_retriever(similarity_top_k=2, vector_store_query_mode="mmr")
    question = "The river"  # were it a document's text, every other's MMR score would be 0
    assert ids(near.retrieve(question)) == ["same0", "same1"]
    assert ids(diverse.retrieve(question)) == ["same0", "other"]
    options = {"mmr_threshold": 1.0, "mmr_prefetch_k": 3}
    alone = index.as_retriever(
        similarity_top_k=2, vector_store_query_mode="mmr", vector_store_kwargs=options
    )
    assert ids(alone.retrieve(question)) == ["same0", "same1"]
    misspelt = index.as_retriever(
        vector_store_query_mode="mmr", vector_store_kwargs={"mmr_treshold": 1.0}
    )
    with pytest.raises(InputError, match=r"'mmr_treshold'.*Did you mean mmr_threshold=\?"):
        misspelt.retrieve(question)


def test_mmr_is_langchains(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    from m3_retrievers.langchain import M3VectorStore as LangChainStore

    store = M3VectorStore.from_nodes(nodes, encoder)
    theirs = LangChainStore(store.hybrid).max_marginal_relevance_search(QUERY, k=4, lambda_mult=0.3)
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
    ours = index.as_retriever(
        similarity_top_k=4,
        vector_store_query_mode="mmr",
        vector_store_kwargs={"mmr_threshold": 0.3},
    )
    assert ids(ours.retrieve(QUERY)) == [document.id for document in theirs]


def test_everything_takes_an_encoder_by_position_or_by_name(
    encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    from m3_retrievers.llama_index import M3ColbertRerank, M3HybridRerank, M3SparseEmbedding

    for kind in (M3Embedding, M3SparseEmbedding, M3ColbertRerank, M3HybridRerank):
        for given in (encoder, encoder.name):
            assert kind(given).encoder.fingerprint == encoder.fingerprint
    assert len(M3VectorStore(M3Embedding(encoder))) == 0
    assert M3EnsembleRetriever(HybridRetriever(encoder)).retrieve(QUERY) == []
