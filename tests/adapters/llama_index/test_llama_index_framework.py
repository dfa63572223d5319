"""Inside LlamaIndex: VectorStoreIndex, query engines, ingestion with upserts, query fusion."""

from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine, TransformQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from m3_retrievers import HybridRetriever, M3Encoder
from m3_retrievers.llama_index import (
    BM25Retriever,
    M3ColbertRerank,
    M3Embedding,
    M3EnsembleRetriever,
    M3HybridRerank,
    M3VectorStore,
)

QUERY = "Where is the river?"
ODD = MetadataFilters(filters=[MetadataFilter(key="even", value="no")])


@pytest.fixture
def store(encoder: M3Encoder) -> M3VectorStore:
    return M3VectorStore(HybridRetriever(encoder, legs=("dense", "sparse", "bm25")))


def index_over(store: M3VectorStore, nodes: list[TextNode]) -> VectorStoreIndex:
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
    index.insert_nodes(nodes)
    return index


def test_readme_example(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    documents = [Document(text=node.text) for node in nodes]
    index = VectorStoreIndex.from_documents(documents, embed_model=M3Embedding(encoder=encoder))
    engine = index.as_query_engine(
        similarity_top_k=6,
        node_postprocessors=[M3ColbertRerank(encoder=encoder, top_n=2)],
        llm=MockLLM(),
    )
    response = engine.query(QUERY)
    assert len(response.source_nodes) == 2
    assert [one.metadata["scores"]["colbert"] for one in response.source_nodes] == [
        one.score for one in response.source_nodes
    ]


@pytest.mark.parametrize("mode", ["default", "sparse", "text_search", "hybrid"])
def test_vector_store_index_in_every_mode(
    store: M3VectorStore, nodes: list[TextNode], mode: str
) -> None:
    retriever = index_over(store, nodes).as_retriever(
        vector_store_query_mode=mode, similarity_top_k=3, filters=ODD
    )
    found = retriever.retrieve(QUERY)
    assert found or mode in ("sparse", "text_search")
    assert {one.node.metadata["even"] for one in found} <= {"no"}


def test_each_node_and_question_is_encoded_once(tiny_m3: Path, nodes: list[TextNode]) -> None:
    # an encoder that keeps nothing: what is counted is what the room asks for
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", keep=None)
    store = M3VectorStore(HybridRetriever(encoder, legs=("dense", "sparse", "bm25")))
    passes: list[int] = []
    backbone = store.hybrid.encoder.checkpoint.backbone
    handle = backbone.register_forward_pre_hook(lambda *_: passes.append(1))
    index = index_over(store, nodes)
    once = len(passes)
    passes.clear()
    store.add(nodes)
    assert len(passes) == once
    passes.clear()
    for mode in ("default", "hybrid"):
        index.as_retriever(vector_store_query_mode=mode).retrieve(QUERY)
    handle.remove()
    assert len(passes) == 2


def test_any_embed_model_of_the_index_gives_the_same_answers(
    store: M3VectorStore, nodes: list[TextNode]
) -> None:
    found = index_over(store, nodes).as_retriever(vector_store_query_mode="hybrid").retrieve(QUERY)
    other = VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(embed_dim=3))
    assert other.as_retriever(vector_store_query_mode="hybrid").retrieve(QUERY) == found


def test_index_inserts_updates_and_deletes(store: M3VectorStore) -> None:
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
    index.insert(Document(id_="a", text="The river rose."))
    index.insert(Document(id_="b", text="An old clock."))
    index.update_ref_doc(Document(id_="a", text="The river fell."))
    assert sorted(node.get_content() for node in store.get_nodes()) == [
        "An old clock.",
        "The river fell.",
    ]
    index.delete_ref_doc("a")
    assert [node.get_content() for node in store.get_nodes()] == ["An old clock."]
    index.delete_nodes([store.get_nodes()[0].node_id])
    assert store.get_nodes() == []


async def test_query_engine(store: M3VectorStore, nodes: list[TextNode]) -> None:
    encoder = store.hybrid.encoder
    store.add(nodes)
    engine = RetrieverQueryEngine.from_args(
        M3EnsembleRetriever(store.hybrid, k=6),
        node_postprocessors=[M3HybridRerank(encoder=encoder, top_n=2)],
        llm=MockLLM(),
    )
    response = engine.query(QUERY)
    again = await engine.aquery(QUERY)
    assert [one.node_id for one in response.source_nodes] == [
        one.node_id for one in again.source_nodes
    ]
    assert len(response.source_nodes) == 2
    prompt = str(response)  # the mock model repeats what it is shown
    assert response.source_nodes[0].text in prompt
    assert "scores" not in prompt


def test_hyde_decides_the_dense_part_where_it_is_asked_to(
    encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    store = M3VectorStore(HybridRetriever(encoder), is_embedding_query=True)
    index = index_over(store, nodes)
    hyde = HyDEQueryTransform(llm=MockLLM(), include_original=False)
    engine = TransformQueryEngine(index.as_query_engine(llm=MockLLM()), hyde)
    bundle = hyde.run(QUERY)
    (imagined,) = bundle.embedding_strs
    expected = store.embed_model.get_query_embedding(imagined)
    hits = {
        str(n): float(encoder.encode_documents([node.text]).require("dense")[0] @ expected)
        for n, node in enumerate(nodes)
    }
    for one in engine.query(QUERY).source_nodes:
        assert one.score == pytest.approx(hits[one.node_id], abs=1e-4)


def test_ingestion_with_upserts(store: M3VectorStore) -> None:
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), store.embed_model],
        docstore=SimpleDocumentStore(),
        vector_store=store,
        docstore_strategy=DocstoreStrategy.UPSERTS,
    )
    first = [Document(id_="a", text="The river rose."), Document(id_="b", text="An old clock.")]
    assert len(pipeline.run(documents=first)) == 2
    assert pipeline.run(documents=first) == []
    assert len(pipeline.run(documents=[Document(id_="a", text="The river fell.")])) == 1
    assert sorted(node.get_content() for node in store.get_nodes()) == [
        "An old clock.",
        "The river fell.",
    ]
    pipeline.docstore_strategy = DocstoreStrategy.UPSERTS_AND_DELETE
    pipeline.run(documents=[Document(id_="b", text="An old clock.")])
    assert [node.get_content() for node in store.get_nodes()] == ["An old clock."]


async def test_async_ingestion_with_an_embedding_step(
    store: M3VectorStore, nodes: list[TextNode]
) -> None:
    pipeline = IngestionPipeline(
        transformations=[M3Embedding(encoder=store.hybrid.encoder)], vector_store=store
    )
    made = await pipeline.arun(nodes=nodes)
    assert all(node.embedding for node in made)
    assert len(store.get_nodes()) == 6


QUESTIONS = ["the river", "the bridge", "the clock"]


class Asks(MockLLM):
    """Writes the three questions that query fusion asks for."""

    def complete(self, *args: Any, **kwargs: Any) -> Any:
        done = super().complete(*args, **kwargs)
        done.text = "\n".join(QUESTIONS)
        return done


def test_query_fusion_knows_a_node_again(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    legs = [
        M3EnsembleRetriever.from_nodes(nodes, encoder=encoder, k=6, scores="off"),
        BM25Retriever.from_nodes(nodes, k=6, scores="off"),
    ]
    fusion = QueryFusionRetriever(
        [*legs],
        llm=Asks(),
        mode=FUSION_MODES.RECIPROCAL_RANK,
        num_queries=4,
        similarity_top_k=20,
        use_async=False,
    )
    found = fusion.retrieve(QUERY)
    expected: dict[str, float] = {}
    for question in (QUERY, *QUESTIONS):
        for leg in legs:
            for rank, one in enumerate(leg.retrieve(question)):
                expected[one.node_id] = expected.get(one.node_id, 0) + 1 / (60 + rank)
    # it tells nodes apart by hash: scores among the metadata would split each node in eight
    assert {one.node_id: one.score for one in found} == pytest.approx(expected)


async def test_query_fusion_async(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    fusion = QueryFusionRetriever(
        [M3EnsembleRetriever.from_nodes(nodes, encoder=encoder, k=6, scores="off")],
        llm=Asks(),
        mode=FUSION_MODES.RELATIVE_SCORE,
        num_queries=4,
        similarity_top_k=20,
    )
    found = await fusion.aretrieve(QUERY)
    assert sorted(one.node_id for one in found) == list("012345")


def test_storage_context_and_back(
    store: M3VectorStore, nodes: list[TextNode], tmp_path: Path
) -> None:
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=store.embed_model)
    found = index.as_retriever(vector_store_query_mode="hybrid").retrieve(QUERY)
    context.persist(tmp_path)
    encoder = store.hybrid.encoder
    again = M3VectorStore.from_persist_dir(tmp_path, encoder=encoder)
    loaded = VectorStoreIndex.from_vector_store(again, embed_model=again.embed_model)
    assert loaded.as_retriever(vector_store_query_mode="hybrid").retrieve(QUERY) == found
