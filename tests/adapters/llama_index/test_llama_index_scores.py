"""Scores in a node's metadata: the same wherever one looks, and never in what a model reads."""

from typing import Any

import pytest
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from m3_retrievers import M3Encoder
from m3_retrievers.llama_index import (
    BM25Retriever,
    M3ColbertRerank,
    M3EnsembleRetriever,
    M3HybridRerank,
    M3SparseRetriever,
)

QUERY = "Where is the river?"
MODES = (MetadataMode.EMBED, MetadataMode.LLM)


def makers(encoder: M3Encoder, nodes: list[TextNode], scores: Any) -> dict[str, Any]:
    options = {"k": 6, "scores": scores}
    nested = M3EnsembleRetriever.from_nodes(nodes, encoder, k=6)
    bm25 = BM25Retriever.from_nodes(nodes, **options)
    return {
        "ensemble": M3EnsembleRetriever.from_nodes(nodes, encoder, **options),
        "reranked": M3EnsembleRetriever.from_nodes(
            nodes, encoder, reranker=M3HybridRerank(encoder), **options
        ),
        "fused": M3EnsembleRetriever(retrievers=[nested, bm25], **options),
        "sparse": M3SparseRetriever.from_nodes(nodes, encoder, **options),
        "bm25": bm25,
    }


@pytest.mark.parametrize("scores", ["nested", "flat"])
def test_all_views_of_a_node_agree_and_no_model_reads_its_scores(
    scores: str, encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    stored = {node.node_id: node for node in nodes}
    for name, retriever in makers(encoder, nodes, scores).items():
        found = retriever.retrieve(QUERY)
        assert found, name
        for one in found:
            known = stored[one.node_id]
            assert one.metadata == one.node.metadata == one.to_dict()["node"]["metadata"], name
            assert set(one.metadata) > set(known.metadata), name
            for mode in MODES:
                assert one.get_content(mode) == known.get_content(mode), name


def test_off_gives_nodes_as_they_were_stored(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    stored = {node.node_id: node for node in nodes}
    for name, retriever in makers(encoder, nodes, "off").items():
        for one in retriever.retrieve(QUERY):
            assert one.node == stored[one.node_id], name
            assert one.node.hash == stored[one.node_id].hash, name
            assert one.score is not None, name


def test_scores_stay_hidden_whatever_is_done_next(
    encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    found = M3EnsembleRetriever.from_nodes(nodes, encoder, k=6).retrieve(QUERY)
    stored = {node.node_id: node for node in nodes}
    for scores in ("nested", "flat", "off"):
        reranker = M3ColbertRerank(encoder, scores=scores, keep_retrieval_score=True)
        for one in reranker.postprocess_nodes(found, query_str=QUERY):
            assert "retrieval_score" in one.metadata
            for mode in MODES:
                assert one.get_content(mode) == stored[one.node_id].get_content(mode)


def test_a_rerankers_own_score_is_taken_over(nodes: list[TextNode]) -> None:
    class Backwards(BaseNodePostprocessor):
        """Gives new scores, as LlamaIndex's rerankers do."""

        def _postprocess_nodes(
            self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
        ) -> list[NodeWithScore]:
            return [
                NodeWithScore(node=one.node, score=1.0 / (n + 1))
                for n, one in enumerate(reversed(nodes))
            ]

    bm25 = BM25Retriever.from_nodes(nodes, k=6)
    found = M3EnsembleRetriever(retrievers=[bm25], reranker=Backwards(), k=2).retrieve("the river")
    assert [one.metadata["scores"]["reranker"] for one in found] == [1.0, 0.5]
    assert [one.score for one in found] == [1.0, 0.5]
    assert set(found[0].metadata["scores"]) == {"bm25", "fusion", "reranker"}
