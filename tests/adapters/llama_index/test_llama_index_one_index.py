"""M3EnsembleRetriever over one index, and the same answers as in LangChain."""

from copy import deepcopy
from typing import Any

import pytest
from langchain_core.documents import Document
from llama_index.core import Settings
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.retrieval import (
    RetrievalEndEvent,
    RetrievalStartEvent,
)
from llama_index.core.schema import (
    Document as LlamaDocument,
)
from llama_index.core.schema import IndexNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

from m3_retrievers import HybridRetriever, HybridWeights, M3Encoder, ReciprocalRankFusion
from m3_retrievers import langchain as lc
from m3_retrievers.errors import DuplicateIdError, FilterError, InputError
from m3_retrievers.llama_index import (
    BM25Retriever,
    M3EnsembleRetriever,
    M3HybridRerank,
    M3SparseRetriever,
)

QUERY = "Where is the river?"
EVEN = MetadataFilters(filters=[MetadataFilter(key="even", value="yes")])


@pytest.fixture
def retriever(encoder: M3Encoder, nodes: list[TextNode]) -> M3EnsembleRetriever:
    return M3EnsembleRetriever.from_nodes(nodes, encoder=encoder, k=5)


def as_documents(nodes: list[TextNode]) -> list[Document]:
    """The same documents for LangChain: what the model reads of a node is the text."""
    return [
        Document(
            id=node.node_id,
            page_content=node.get_content(MetadataMode.EMBED),
            metadata=node.metadata,
        )
        for node in nodes
    ]


def answers(found: list[Any]) -> list[tuple[str, dict[str, float]]]:
    return [
        (one.node_id if isinstance(one, NodeWithScore) else one.id, one.metadata["scores"])
        for one in found
    ]


@pytest.mark.parametrize("shown", [False, True], ids=["text alone", "metadata embedded too"])
@pytest.mark.parametrize("query", [QUERY, "Who reads the page?", "clock", ""])
def test_both_frameworks_give_the_same_hits_and_scores(
    encoder: M3Encoder, nodes: list[TextNode], query: str, shown: bool
) -> None:
    if shown:
        nodes = [node.model_copy(update={"excluded_embed_metadata_keys": []}) for node in nodes]
    documents = as_documents(nodes)
    theirs = lc.M3EnsembleRetriever.from_documents(documents, encoder=encoder, k=5)
    ours = M3EnsembleRetriever.from_nodes(nodes, encoder=encoder, k=5)
    assert answers(ours.retrieve(query)) == answers(theirs.invoke(query))
    assert answers(M3SparseRetriever.from_nodes(nodes, encoder=encoder).retrieve(query)) == answers(
        lc.M3SparseRetriever.from_documents(documents, encoder=encoder).invoke(query)
    )
    assert answers(BM25Retriever.from_nodes(nodes).retrieve(query)) == answers(
        lc.BM25Retriever.from_documents(documents).invoke(query)
    )


def test_both_frameworks_fuse_and_rerank_alike(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    documents = as_documents(nodes)
    theirs = lc.M3EnsembleRetriever(
        retrievers=[
            lc.M3SparseRetriever.from_documents(documents, encoder=encoder),
            lc.BM25Retriever.from_documents(documents),
        ],
        reranker=lc.M3HybridReranker(encoder=encoder),
    )
    ours = M3EnsembleRetriever(
        retrievers=[
            M3SparseRetriever.from_nodes(nodes, encoder=encoder),
            BM25Retriever.from_nodes(nodes),
        ],
        reranker=M3HybridRerank(encoder=encoder),
    )
    assert answers(ours.retrieve("the river")) == answers(theirs.invoke("the river"))


def test_an_index_of_one_framework_answers_in_the_other(
    encoder: M3Encoder, nodes: list[TextNode], retriever: M3EnsembleRetriever
) -> None:
    theirs = lc.M3EnsembleRetriever.from_documents(as_documents(nodes), encoder=encoder, k=5)
    assert theirs.hybrid is not None
    assert retriever.hybrid is not None
    here = M3EnsembleRetriever(theirs.hybrid, k=5).retrieve(QUERY)
    there = lc.M3EnsembleRetriever(hybrid=retriever.hybrid, k=5).invoke(QUERY)
    assert answers(here) == answers(there)
    stored = {**nodes[int(here[0].node_id)].metadata, "scores": here[0].metadata["scores"]}
    assert here[0].metadata == stored


def test_hits_are_the_core_retrievers(
    retriever: M3EnsembleRetriever, nodes: list[TextNode]
) -> None:
    assert retriever.hybrid is not None
    hits = retriever.hybrid.search(QUERY, k=5)
    found = retriever.retrieve(QUERY)
    assert [(one.node_id, one.score, one.metadata["scores"]) for one in found] == [
        (hit.id, hit.score, hit.scores) for hit in hits
    ]
    stored = M3EnsembleRetriever(retriever.hybrid, k=5, scores="off").retrieve(QUERY)
    assert [one.node for one in stored] == [nodes[int(hit.id)] for hit in hits]


def test_one_forward_pass_a_query(encoder: M3Encoder, retriever: M3EnsembleRetriever) -> None:
    passes: list[int] = []
    handle = encoder.checkpoint.backbone.register_forward_pre_hook(lambda *_: passes.append(1))
    retriever.retrieve("asked for the first time")
    handle.remove()
    assert len(passes) == 1


def test_each_leg_is_a_retrieval_of_its_own(
    encoder: M3Encoder, nodes: list[TextNode], events: Any, callbacks: Any
) -> None:
    retriever = M3EnsembleRetriever.from_nodes(
        nodes, encoder=encoder, k=2, callback_manager=callbacks
    )
    found = retriever.retrieve(QUERY)
    ended = events.of(RetrievalEndEvent)
    assert len(events.of(RetrievalStartEvent)) == 3
    assert [set(one.metadata["scores"]) for end in ended[:2] for one in end.nodes] == [
        {"dense"},
        {"dense"},
        {"sparse"},
        {"sparse"},
    ]
    assert [one.to_dict() for one in ended[2].nodes] == [one.to_dict() for one in found]
    pairs = callbacks.handlers[0].get_event_pairs(CBEventType.RETRIEVE)
    assert len(pairs) == 3
    assert {begun.payload[EventPayload.QUERY_STR] for begun, _ in pairs} == {QUERY}


async def test_async_legs_show_up_too(retriever: M3EnsembleRetriever, events: Any) -> None:
    found = retriever.retrieve(QUERY)
    events.seen.clear()
    assert await retriever.aretrieve(QUERY) == found
    assert len(events.of(RetrievalEndEvent)) == 3


def test_filters_apply_before_the_top_k(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    retriever = M3EnsembleRetriever.from_nodes(nodes, encoder=encoder, k=6, filters=EVEN)
    assert sorted(one.node_id for one in retriever.retrieve(QUERY)) == ["0", "2", "4"]
    assert retriever.hybrid is not None
    over = M3EnsembleRetriever(retriever.hybrid, filters={"n": {"$gte": 4}})
    assert sorted(one.node_id for one in over.retrieve(QUERY)) == ["4", "5"]


def test_neither_input_nor_index_is_touched(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    nodes[0].metadata["tags"] = ["a"]
    before = deepcopy(nodes)
    retriever = M3EnsembleRetriever.from_nodes(nodes, encoder=encoder, k=6)
    for one in retriever.retrieve(QUERY):
        one.node.metadata.get("tags", []).append("b")
        one.node.metadata["mine"] = True
    assert nodes == before
    retriever.scores = "off"
    assert {one.node_id: one.node for one in retriever.retrieve(QUERY)} == {
        node.node_id: node for node in nodes
    }


def test_weights_are_honoured(retriever: M3EnsembleRetriever, encoder: M3Encoder) -> None:
    assert retriever.hybrid is not None
    over = M3EnsembleRetriever.from_index(
        retriever.hybrid.index,
        encoder=encoder,
        k=2,
        weights=HybridWeights(dense=0.0, sparse=0.0, colbert=1.0),
    )
    for one in over.retrieve(QUERY):
        assert one.score == pytest.approx(one.metadata["scores"]["colbert"])


def test_a_query_bundle_with_the_embedding_of_another_model_changes_nothing(
    retriever: M3EnsembleRetriever,
) -> None:
    bundle = QueryBundle(QUERY, embedding=[1.0, 0.0])
    assert retriever.retrieve(bundle) == retriever.retrieve(QUERY)


def test_no_language_model_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    monkeypatch.setattr(Settings, "_llm", None)
    M3EnsembleRetriever.from_nodes(nodes, encoder=encoder).retrieve(QUERY)
    assert Settings._llm is None


def test_index_nodes_lead_to_what_they_stand_for(encoder: M3Encoder) -> None:
    behind = TextNode(id_="behind", text="all about rivers")
    retriever = M3EnsembleRetriever.from_nodes(
        [IndexNode(text="river", index_id="x", obj=behind)], encoder=encoder
    )
    assert [one.node_id for one in retriever.retrieve(QUERY)] == ["behind"]


def test_documents_are_nodes_too(encoder: M3Encoder) -> None:
    given = LlamaDocument(id_="d", text="the river", metadata={"lang": "en"})
    (one,) = M3EnsembleRetriever.from_nodes([given], encoder, scores="off").retrieve(QUERY)
    assert (one.node_id, one.node.get_content(), one.node.metadata) == (
        "d",
        "the river",
        {"lang": "en"},
    )


def test_no_nodes_give_no_results(encoder: M3Encoder) -> None:
    assert M3EnsembleRetriever.from_nodes([], encoder=encoder).retrieve(QUERY) == []


def test_errors(encoder: M3Encoder, nodes: list[TextNode], retriever: M3EnsembleRetriever) -> None:
    with pytest.raises(DuplicateIdError, match="'0'"):
        M3EnsembleRetriever.from_nodes([nodes[0], nodes[0]], encoder=encoder)
    with pytest.raises(InputError, match="k expects an integer"):
        M3EnsembleRetriever(HybridRetriever(encoder), k=0)
    with pytest.raises(FilterError, match=r"\$near"):
        M3EnsembleRetriever(HybridRetriever(encoder), filters={"n": {"$near": 3}})
    with pytest.raises(InputError, match="expects hybrid= or"):
        M3EnsembleRetriever()
    with pytest.raises(InputError, match="expects hybrid= or"):
        M3EnsembleRetriever(retriever.hybrid, retrievers=[retriever])
    with pytest.raises(InputError, match="fusion"):
        M3EnsembleRetriever(retriever.hybrid, fusion=ReciprocalRankFusion())
