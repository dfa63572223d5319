"""Rerankers: LlamaIndex node postprocessors that reorder by M3's scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher
from pydantic import computed_field

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.frameworks.fields import EncoderField, Scores, TopN, Weights
from m3_retrievers.frameworks.inputs import check_all
from m3_retrievers.frameworks.scores import ScoreStyle
from m3_retrievers.habits import guided
from m3_retrievers.llama_index import names
from m3_retrievers.llama_index.component import StrictComponent
from m3_retrievers.llama_index.nodes import embedded, restyled, scored
from m3_retrievers.retrieval.reranking import COLBERT_ONLY, rerank
from m3_retrievers.types.plan import HybridWeights

dispatcher = get_dispatcher(__name__)


@guided(**names.OF_RERANKER)
class M3ColbertRerank(StrictComponent, BaseNodePostprocessor):
    """Reorders nodes by late interaction (MaxSim), from whatever retriever they come.

    encoder: a model with a ColBERT head, or its name. top_n: how many to keep, at least 1;
    None keeps all. keep_retrieval_score: put the score a node came with into
    ``metadata["retrieval_score"]``. Returns copies; ``score`` is MaxSim, -1 to 1, and
    ``metadata["scores"]["colbert"]`` too.

    scores: ``"nested"`` writes ``metadata["scores"]``, ``"flat"`` an entry a score such as
    ``metadata["score_colbert"]``, ``"off"`` leaves the metadata as it is.
    """

    encoder: EncoderField = Field(exclude=True)
    top_n: TopN = None
    scores: Scores = "nested"
    keep_retrieval_score: bool = False

    def __init__(self, encoder: Encoder | str | Path, **options: Any) -> None:
        super().__init__(encoder=encoder, **options)

    @computed_field
    def model(self) -> str:
        """Return the name of the model."""
        return self.encoder.name

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes down for this class."""
        return "M3ColbertRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not isinstance(query_bundle, QueryBundle):
            raise InputError(
                f"{self.class_name()} expects a query, got {query_bundle!r:.60}. Pass a text as "
                "query_str=, or a QueryBundle as query_bundle=."
            )
        nodes = check_all(
            nodes,
            NodeWithScore,
            name="nodes",
            plural="LlamaIndex's NodeWithScore",
            remedy="They are what a retriever returns; wrap a node as NodeWithScore(node=node).",
        )
        name = self.encoder.name
        top_n = len(nodes) if self.top_n is None else self.top_n
        dispatcher.event(
            ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=name)
        )
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            best = self._reranked(nodes, query_bundle.query_str)
            event.on_end(payload={EventPayload.NODES: best})
        dispatcher.event(ReRankEndEvent(nodes=best))
        return best

    def _reranked(self, nodes: list[NodeWithScore], query: str) -> list[NodeWithScore]:
        texts = [embedded(found.node) for found in nodes]
        places = rerank(self.encoder, query, texts, weights=self._weights())[: self.top_n]
        best = []
        for place in places:
            found = nodes[place.index]
            kept = {"retrieval_score": found.score} if self.keep_retrieval_score else {}
            best.append(scored(found, place.score, place.scores, self.scores, **kept))
        return best

    def _weights(self) -> HybridWeights | None:
        return COLBERT_ONLY


@guided()
class M3HybridRerank(M3ColbertRerank):
    """Reorders nodes by the hybrid score: dense, sparse and ColBERT, weighted.

    weights: None is the model's own; a mode of weight 0 is not computed, one that the model
    lacks is left out. ``metadata["scores"]`` holds every mode's score and ``hybrid``.
    """

    weights: Weights = None

    def __init__(self, encoder: Encoder | str | Path, **options: Any) -> None:
        super().__init__(encoder, **options)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes down for this class."""
        return "M3HybridRerank"

    def _weights(self) -> HybridWeights | None:
        return self.weights


def nested(reranker: BaseNodePostprocessor) -> BaseNodePostprocessor:
    """Return a reranker that shows its scores to whoever called it, whatever its own style."""
    if isinstance(reranker, M3ColbertRerank):
        return reranker.model_copy(update={"scores": "nested"})
    return reranker


def with_reranker_score(nodes: Sequence[NodeWithScore], style: ScoreStyle) -> list[NodeWithScore]:
    """Return copies with the score they now have, the reranker's, among their scores."""
    found = []
    for node in nodes:
        scores = {} if node.score is None else {"reranker": float(node.score)}
        found.append(restyled(scored(node, node.score, scores, "nested"), style))
    return found
