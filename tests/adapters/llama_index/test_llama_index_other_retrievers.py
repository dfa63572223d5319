"""M3EnsembleRetriever over retrievers of any kind."""

import asyncio
from copy import deepcopy
from typing import Any

import pytest
from llama_index.core import MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CBEventType
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from m3_retrievers import M3Encoder, ReciprocalRankFusion, WeightedSum
from m3_retrievers.errors import InputError
from m3_retrievers.llama_index import (
    BM25Retriever,
    M3ColbertRerank,
    M3Embedding,
    M3EnsembleRetriever,
    M3HybridRerank,
)

QUERY = "Where is the river?"


class Fixed(BaseRetriever):
    """Returns the same nodes whatever is asked."""

    def __init__(self, found: list[NodeWithScore], **options: Any) -> None:
        self.found = found
        super().__init__(**options)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.found


def fixed(*found: TextNode | tuple[TextNode, float]) -> Fixed:
    pairs = [one if isinstance(one, tuple) else (one, None) for one in found]
    return Fixed([NodeWithScore(node=node, score=score) for node, score in pairs])


def node(text: str, id: str | None = None, **metadata: Any) -> TextNode:
    return TextNode(text=text, metadata=metadata, **({} if id is None else {"id_": id}))


def texts(found: list[NodeWithScore]) -> list[str]:
    return [one.text for one in found]


def test_fused_by_reciprocal_rank() -> None:
    a, b, c = node("a"), node("b"), node("c")
    found = M3EnsembleRetriever(retrievers=[fixed(a, b), fixed(b, c)]).retrieve(QUERY)
    assert texts(found) == ["b", "a", "c"]
    expected = [1 / 62 + 1 / 61, 1 / 61, 1 / 62]
    assert [one.score for one in found] == pytest.approx(expected)
    assert [one.metadata["scores"]["fusion"] for one in found] == pytest.approx(expected)


def test_weights_are_honoured() -> None:
    a, b = node("a"), node("b")
    legs = [fixed(a, b), fixed(b, a)]
    second = ReciprocalRankFusion(weights={"retriever_1": 0.1, "retriever_2": 1.0})
    assert texts(M3EnsembleRetriever(retrievers=legs).retrieve(QUERY)) == ["a", "b"]
    assert texts(M3EnsembleRetriever(retrievers=legs, fusion=second).retrieve(QUERY)) == ["b", "a"]


def test_descending_scores_of_the_legs_count() -> None:
    a, b, c = node("a"), node("b"), node("c")
    legs = [fixed((a, 10.0), (b, 9.0), (c, 0.0)), fixed((b, 1.0), (c, 0.0))]
    found = M3EnsembleRetriever(retrievers=legs, fusion=WeightedSum()).retrieve(QUERY)
    assert [(one.text, one.score) for one in found] == [("b", 1.9), ("a", 1.0), ("c", 0.0)]


@pytest.mark.parametrize("scores", [(1.0, 2.0, 3.0), (1.0, None, 0.0), (float("nan"), 0.5, 0.0)])
def test_scores_that_do_not_descend_give_way_to_ranks(scores: tuple[float, float, float]) -> None:
    given = [(node(text), score) for text, score in zip("abc", scores, strict=True)]
    found = M3EnsembleRetriever(
        retrievers=[fixed(*given)], fusion=WeightedSum(normalize=None)
    ).retrieve(QUERY)
    assert [(one.text, one.score) for one in found] == [("a", 1.0), ("b", 0.5), ("c", 1 / 3)]


def test_same_id_is_the_same_node() -> None:
    legs = [fixed(node("old", "1"), node("x", "2")), fixed(node("new", "1"))]
    assert texts(M3EnsembleRetriever(retrievers=legs).retrieve(QUERY)) == ["old", "x"]


def test_same_text_and_metadata_are_the_same_node() -> None:
    legs = [fixed(node("a", n=1)), fixed(node("a", n=1), node("a", n=2))]
    found = M3EnsembleRetriever(retrievers=legs).retrieve(QUERY)
    assert [one.node.metadata["n"] for one in found] == [1, 2]


def test_filters_apply_before_the_top_k_of_every_retriever(nodes: list[TextNode]) -> None:
    ensemble = M3EnsembleRetriever(
        retrievers=[
            BM25Retriever.from_nodes(nodes, k=1),
            BM25Retriever.from_nodes(nodes, filters={"n": {"$gt": 1}}),
        ],
        filters={"even": "yes"},
    )
    alone = BM25Retriever.from_nodes(nodes, k=1, filters={"even": "yes"}).retrieve("the river")
    found = ensemble.retrieve("the river")
    assert alone[0].node_id in {one.node_id for one in found}
    assert {one.metadata["even"] for one in found} == {"yes"}
    assert {one.metadata["n"] for one in ensemble.retrieve("row", filters={"n": 4})} == {4}


async def test_filters_over_retrievers_that_take_none_are_refused(nodes: list[TextNode]) -> None:
    mixed = [BM25Retriever.from_nodes(nodes), fixed(*nodes)]
    with pytest.raises(InputError, match=r"got retriever_2 \(Fixed\)"):
        M3EnsembleRetriever(retrievers=mixed, filters={"even": "no"})
    ensemble = M3EnsembleRetriever(retrievers=mixed)
    with pytest.raises(InputError, match=r"got retriever_2 \(Fixed\)"):
        ensemble.retrieve("the river", filters={"even": "no"})
    with pytest.raises(InputError, match=r"got retriever_2 \(Fixed\)"):
        await ensemble.aretrieve("the river", filters={"even": "no"})


def test_id_key_identifies_nodes_whose_metadata_differ() -> None:
    legs = [fixed(node("a", pk=1, store="x")), fixed(node("a", pk=1, store="y"))]
    assert len(M3EnsembleRetriever(retrievers=legs).retrieve(QUERY)) == 2
    assert len(M3EnsembleRetriever(retrievers=legs, id_key="pk").retrieve(QUERY)) == 1


def test_a_leg_that_repeats_a_node_counts_it_once() -> None:
    a, b = node("a"), node("b")
    found = M3EnsembleRetriever(retrievers=[fixed(a, a, b)]).retrieve(QUERY)
    assert [one.score for one in found] == pytest.approx([1 / 61, 1 / 62])


def test_vector_retrievers_keep_their_embeddings_to_themselves(
    encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    narrow = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=3))
    wide = VectorStoreIndex(nodes, embed_model=M3Embedding(encoder=encoder))
    alone = [one.node_id for one in wide.as_retriever(similarity_top_k=3).retrieve(QUERY)]
    ensemble = M3EnsembleRetriever(
        retrievers=[narrow.as_retriever(), wide.as_retriever(similarity_top_k=3)],
        fusion=ReciprocalRankFusion(weights={"retriever_1": 0.0, "retriever_2": 1.0}),
    )
    assert [one.node_id for one in ensemble.retrieve(QUERY)] == alone


def test_reranker_orders_by_the_hybrid_score(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    index = VectorStoreIndex(nodes, embed_model=M3Embedding(encoder=encoder))
    ensemble = M3EnsembleRetriever(
        retrievers=[index.as_retriever(similarity_top_k=6), BM25Retriever.from_nodes(nodes, k=6)],
        reranker=M3HybridRerank(encoder=encoder),
        k=6,
    )
    found = ensemble.retrieve(QUERY)
    expected = M3EnsembleRetriever.from_nodes(nodes, encoder=encoder, k=6).retrieve(QUERY)
    assert [one.node_id for one in found] == [one.node_id for one in expected]
    for mine, theirs in zip(found, expected, strict=True):
        scores = mine.metadata["scores"]
        assert set(scores) >= {"dense", "sparse", "colbert", "hybrid", "fusion"}
        for mode, score in theirs.metadata["scores"].items():
            # the index keeps ColBERT vectors as float16
            assert scores[mode] == pytest.approx(score, abs=2e-3)


def test_k_cuts_after_reranking(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    reranker = M3ColbertRerank(encoder=encoder)
    ensemble = M3EnsembleRetriever(retrievers=[fixed(*nodes)], reranker=reranker, k=2)
    given = [NodeWithScore(node=one) for one in nodes]
    best = [one.node_id for one in reranker.postprocess_nodes(given, query_str=QUERY)]
    assert [one.node_id for one in ensemble.retrieve(QUERY)] == best[:2]


def test_legs_and_reranker_show_up(
    encoder: M3Encoder, nodes: list[TextNode], events: Any, callbacks: Any
) -> None:
    leg = Fixed([NodeWithScore(node=nodes[0])], callback_manager=callbacks)
    ensemble = M3EnsembleRetriever(
        retrievers=[leg, fixed(nodes[1])],
        reranker=M3ColbertRerank(encoder=encoder, callback_manager=callbacks),
        callback_manager=callbacks,
    )
    found = ensemble.retrieve(QUERY)
    assert [texts(end.nodes) for end in events.of(RetrievalEndEvent)] == [
        [nodes[0].text],
        [nodes[1].text],
        texts(found),
    ]
    assert [texts(end.nodes) for end in events.of(ReRankEndEvent)] == [texts(found)]
    remembered = callbacks.handlers[0]
    assert len(remembered.get_event_pairs(CBEventType.RETRIEVE)) == 2
    assert len(remembered.get_event_pairs(CBEventType.RERANKING)) == 1


async def test_async_legs_run_side_by_side() -> None:
    both_started = asyncio.Barrier(2)

    class Meeting(Fixed):
        async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
            async with asyncio.timeout(60):
                await both_started.wait()
            return self.found

    legs = [Meeting([NodeWithScore(node=node(text))]) for text in "ab"]
    assert texts(await M3EnsembleRetriever(retrievers=legs).aretrieve(QUERY)) == ["a", "b"]


async def test_async_equals_sync(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    ensemble = M3EnsembleRetriever(
        retrievers=[fixed(*nodes), BM25Retriever.from_nodes(nodes)],
        reranker=M3HybridRerank(encoder=encoder, top_n=3),
    )
    found = ensemble.retrieve(QUERY)
    assert await ensemble.aretrieve(QUERY) == found
    assert len(found) == 3


def test_the_legs_nodes_are_not_touched(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    before = deepcopy(nodes)
    for reranker in (None, M3HybridRerank(encoder=encoder)):
        ensemble = M3EnsembleRetriever(retrievers=[fixed(*nodes)], reranker=reranker)
        for one in ensemble.retrieve(QUERY):
            one.node.metadata["mine"] = True
    assert nodes == before


def test_ensembles_nest(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    inner = M3EnsembleRetriever.from_nodes(nodes, encoder=encoder)
    outer = M3EnsembleRetriever(retrievers=[inner, BM25Retriever.from_nodes(nodes)], k=2)
    found = outer.retrieve("the river")
    assert len(found) == 2
    assert set(found[0].metadata["scores"]) >= {"dense", "hybrid", "bm25", "fusion"}


def test_no_language_model_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    monkeypatch.setattr(Settings, "_llm", None)
    M3EnsembleRetriever(
        retrievers=[BM25Retriever.from_nodes(nodes)], reranker=M3ColbertRerank(encoder=encoder)
    ).retrieve(QUERY)
    assert Settings._llm is None


def test_no_nodes_give_no_results(encoder: M3Encoder) -> None:
    ensemble = M3EnsembleRetriever(retrievers=[fixed()], reranker=M3HybridRerank(encoder=encoder))
    assert ensemble.retrieve(QUERY) == []
