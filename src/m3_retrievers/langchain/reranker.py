"""Rerankers: LangChain document compressors that reorder by M3's scores."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, InstanceOf
from typing_extensions import override

from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.langchain.checks import check_documents
from m3_retrievers.langchain.documents import scored
from m3_retrievers.retrieval.reranking import COLBERT_ONLY, rerank
from m3_retrievers.types.plan import HybridWeights


class M3ColbertReranker(BaseDocumentCompressor):
    """Reorders documents by late interaction (MaxSim), from whatever retriever they come.

    encoder: a model with a ColBERT head. top_n: how many to keep, at least 1; None keeps all.
    Returns copies; ``metadata["relevance_score"]`` holds the score, -1 to 1, and
    ``metadata["scores"]["colbert"]`` too.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    encoder: InstanceOf[M3Encoder]
    top_n: int | None = Field(default=None, ge=1)

    @override
    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the best ``top_n`` documents, best first; ties keep the input's order."""
        documents = check_documents(documents)
        texts = [document.page_content for document in documents]
        return [
            scored(documents[place.index], place.scores, relevance_score=place.score)
            for place in rerank(self.encoder, query, texts, weights=self._weights())[: self.top_n]
        ]

    def _weights(self) -> HybridWeights | None:
        return COLBERT_ONLY


class M3HybridReranker(M3ColbertReranker):
    """Reorders documents by the hybrid score: dense, sparse and ColBERT, weighted.

    weights: None is the model's own; a mode of weight 0 is not computed, one that the model
    lacks is left out. ``metadata["scores"]`` holds every mode's score and ``hybrid``.
    """

    weights: InstanceOf[HybridWeights] | None = None

    def _weights(self) -> HybridWeights | None:
        return self.weights
