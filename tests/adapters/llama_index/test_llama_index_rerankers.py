"""M3ColbertRerank and M3HybridRerank as node postprocessors."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from m3_retrievers import HybridWeights, M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.llama_index import M3ColbertRerank, M3HybridRerank

QUERY = "Where is the river?"


@pytest.fixture
def found(nodes: list[TextNode]) -> list[NodeWithScore]:
    return [NodeWithScore(node=node, score=1.0 / n) for n, node in enumerate(nodes, start=1)]


@pytest.fixture(params=[M3ColbertRerank, M3HybridRerank])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_hybrid_scores_are_score_pairs(encoder: M3Encoder, found: list[NodeWithScore]) -> None:
    weights = HybridWeights(dense=0.4, sparse=0.2, colbert=0.4)
    reranker = M3HybridRerank(encoder=encoder, weights=weights)
    best = reranker.postprocess_nodes(found, query_str=QUERY)
    pairs = encoder.score_pairs([(QUERY, one.text) for one in found], weights=weights)
    assert pairs.colbert_sparse_dense is not None
    expected = {str(n): float(s) for n, s in enumerate(pairs.colbert_sparse_dense)}
    assert {one.node_id: one.score for one in best} == pytest.approx(expected, abs=1e-5)
    assert [one.node_id for one in best] == sorted(expected, key=lambda id: -expected[id])
    assert set(best[0].metadata["scores"]) == {"dense", "sparse", "colbert", "hybrid"}


def test_colbert_scores_are_score_pairs(encoder: M3Encoder, found: list[NodeWithScore]) -> None:
    best = M3ColbertRerank(encoder=encoder).postprocess_nodes(found, query_str=QUERY)
    pairs = encoder.score_pairs([(QUERY, one.text) for one in found])
    assert pairs.colbert is not None
    expected = {str(n): float(s) for n, s in enumerate(pairs.colbert)}
    assert {one.node_id: one.score for one in best} == pytest.approx(expected, abs=1e-5)
    assert all(one.metadata["scores"] == {"colbert": one.score} for one in best)


def test_the_text_that_is_embedded_is_what_is_scored(kind: Any, encoder: M3Encoder) -> None:
    node = TextNode(text="page", metadata={"title": "river", "url": "x"})
    node.excluded_embed_metadata_keys = ["url"]
    reranker = kind(encoder=encoder)
    (best,) = reranker.postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    plain = TextNode(text="title: river\n\npage")
    (same,) = reranker.postprocess_nodes([NodeWithScore(node=plain)], query_str=QUERY)
    assert best.score == same.score


def test_top_n_keeps_the_best(kind: Any, encoder: M3Encoder, found: list[NodeWithScore]) -> None:
    everything = kind(encoder=encoder).postprocess_nodes(found, query_str=QUERY)
    assert len(everything) == 6
    best = kind(encoder=encoder, top_n=2).postprocess_nodes(found, query_str=QUERY)
    assert best == everything[:2]


def test_events_and_callbacks(
    kind: Any, encoder: M3Encoder, found: list[NodeWithScore], events: Any, callbacks: Any
) -> None:
    reranker = kind(encoder=encoder, top_n=2, callback_manager=callbacks)
    best = reranker.postprocess_nodes(found, query_bundle=QueryBundle(QUERY))
    (start,), (end,) = events.of(ReRankStartEvent), events.of(ReRankEndEvent)
    assert (start.query.query_str, start.top_n, start.model_name) == (QUERY, 2, encoder.name)
    assert start.nodes == found
    assert end.nodes == best
    ((begun, ended),) = callbacks.handlers[0].get_event_pairs(CBEventType.RERANKING)
    assert begun.payload == {
        EventPayload.NODES: found,
        EventPayload.MODEL_NAME: encoder.name,
        EventPayload.QUERY_STR: QUERY,
        EventPayload.TOP_K: 2,
    }
    assert ended.payload == {EventPayload.NODES: best}


def test_without_top_n_the_event_counts_all(
    encoder: M3Encoder, found: list[NodeWithScore], events: Any
) -> None:
    M3ColbertRerank(encoder=encoder).postprocess_nodes(found, query_str=QUERY)
    assert events.of(ReRankStartEvent)[0].top_n == 6


def test_input_is_not_touched(kind: Any, encoder: M3Encoder, found: list[NodeWithScore]) -> None:
    found[0].node.metadata["tags"] = ["a"]
    before = deepcopy(found)
    best = kind(encoder=encoder, keep_retrieval_score=True).postprocess_nodes(
        found, query_str=QUERY
    )
    for one in best:
        one.node.metadata.get("tags", []).append("b")
        one.node.metadata["mine"] = True
        one.score = 0.0
    assert found == before


def test_retrieval_score_is_kept_for_programs_not_for_models(
    kind: Any, encoder: M3Encoder, found: list[NodeWithScore]
) -> None:
    reranker = kind(encoder=encoder, keep_retrieval_score=True)
    for one in reranker.postprocess_nodes(found, query_str=QUERY):
        original = found[int(one.node_id)]
        assert one.node.metadata["retrieval_score"] == original.score
        assert one.metadata["retrieval_score"] == original.score
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert one.get_content(mode) == original.get_content(mode)
    plain = kind(encoder, scores="off").postprocess_nodes(found, query_str=QUERY)
    assert [one.node for one in plain] == [found[int(one.node_id)].node for one in plain]


def test_scores_of_an_earlier_step_stay(encoder: M3Encoder, found: list[NodeWithScore]) -> None:
    once = M3ColbertRerank(encoder=encoder).postprocess_nodes(found, query_str=QUERY)
    weights = HybridWeights(dense=1.0, sparse=0.0, colbert=0.0)
    twice = M3HybridRerank(encoder=encoder, weights=weights).postprocess_nodes(
        once, query_str=QUERY
    )
    assert all(set(one.metadata["scores"]) == {"colbert", "dense"} for one in twice)


@settings(max_examples=20)
@given(texts=st.lists(st.sampled_from(["the river", "a bridge", "", "pages"]), max_size=6))
def test_ties_keep_their_order_and_nothing_is_lost(encoder: M3Encoder, texts: list[str]) -> None:
    given = [NodeWithScore(node=TextNode(id_=str(n), text=t)) for n, t in enumerate(texts)]
    best = M3ColbertRerank(encoder=encoder).postprocess_nodes(given, query_str=QUERY)
    assert sorted(int(one.node_id) for one in best) == list(range(len(texts)))
    by_text: dict[str, list[int]] = {}
    for one in best:
        by_text.setdefault(one.text, []).append(int(one.node_id))
    assert all(ids == sorted(ids) for ids in by_text.values())


def test_without_a_query_it_says_so(
    kind: Any, encoder: M3Encoder, found: list[NodeWithScore]
) -> None:
    with pytest.raises(InputError, match="expects a query"):
        kind(encoder=encoder).postprocess_nodes(found)


def test_no_nodes_give_none(kind: Any, encoder: M3Encoder) -> None:
    assert kind(encoder=encoder).postprocess_nodes([], query_str=QUERY) == []


async def test_async_equals_sync(kind: Any, encoder: M3Encoder, found: list[NodeWithScore]) -> None:
    reranker = kind(encoder=encoder, top_n=3)
    expected = reranker.postprocess_nodes(found, query_str=QUERY)
    assert await reranker.apostprocess_nodes(found, query_str=QUERY) == expected


@pytest.mark.parametrize("top_n", [0, -2])
def test_top_n_below_one_is_refused(kind: Any, encoder: M3Encoder, top_n: int) -> None:
    with pytest.raises(ValueError, match="top_n"):
        kind(encoder=encoder, top_n=top_n)


def test_settings_are_written_down_without_the_model(encoder: M3Encoder) -> None:
    reranker = M3HybridRerank(encoder=encoder, top_n=2, weights=HybridWeights(1.0, 0.5, 0.0))
    state = reranker.to_dict()
    assert state["class_name"] == "M3HybridRerank"
    assert state["model"] == encoder.name
    again = M3HybridRerank.from_dict(state, encoder=encoder)
    assert (again.top_n, again.weights) == (2, HybridWeights(1.0, 0.5, 0.0))
    assert M3HybridRerank.from_json(reranker.to_json(), encoder=encoder).weights == again.weights
