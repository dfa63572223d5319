"""Rerankers: LangChain document compressors that reorder by M3's scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict
from typing_extensions import override

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.frameworks.fields import Checked, EncoderField, Scores, TopN, Weights
from m3_retrievers.frameworks.inputs import check_question
from m3_retrievers.frameworks.scores import ScoreStyle, read_scores, write_scores
from m3_retrievers.habits import guided
from m3_retrievers.langchain import names
from m3_retrievers.langchain.checks import check_documents
from m3_retrievers.langchain.documents import scored
from m3_retrievers.retrieval.reranking import COLBERT_ONLY, rerank
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.types.plan import HybridWeights

_ORDER = "Call compress_documents(documents, query)."


@guided(**names.OF_RERANKER)
class M3ColbertReranker(Checked, BaseDocumentCompressor):
    """Reorders documents by late interaction (MaxSim), from whatever retriever they come.

    encoder: a model with a ColBERT head, or its name. top_n: how many to keep, at least 1;
    None keeps all. Returns copies; ``metadata["relevance_score"]`` holds the score, -1 to 1,
    and ``metadata["scores"]["colbert"]`` too.

    scores: ``"nested"`` writes ``metadata["scores"]``, ``"flat"`` an entry a score such as
    ``metadata["score_colbert"]``, ``"off"`` leaves the metadata as it is.
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", validate_assignment=True
    )

    encoder: EncoderField
    top_n: TopN = None
    scores: Scores = "nested"

    def __init__(self, encoder: Encoder | str | Path, **options: Any) -> None:
        super().__init__(encoder=encoder, **options)

    @override
    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the best ``top_n`` documents, best first; ties keep the input's order."""
        documents = check_documents(documents)
        check_question(query, remedy=_ORDER, owner=type(self).__name__)
        texts = [document.page_content for document in documents]
        places = rerank(self.encoder, query, texts, weights=self._weights())[: self.top_n]
        return [
            scored(documents[place.index], place.scores, self.scores, relevance_score=place.score)
            for place in places
        ]

    @override
    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return the best documents, computed in a thread; see ``compress_documents``."""
        return await in_thread(self.compress_documents, documents, query, callbacks)

    def _weights(self) -> HybridWeights | None:
        return COLBERT_ONLY


@guided()
class M3HybridReranker(M3ColbertReranker):
    """Reorders documents by the hybrid score: dense, sparse and ColBERT, weighted.

    weights: None is the model's own; a mode of weight 0 is not computed, one that the model
    lacks is left out. ``metadata["scores"]`` holds every mode's score and ``hybrid``.
    """

    weights: Weights = None

    def __init__(self, encoder: Encoder | str | Path, **options: Any) -> None:
        super().__init__(encoder, **options)

    def _weights(self) -> HybridWeights | None:
        return self.weights


def nested(reranker: BaseDocumentCompressor) -> BaseDocumentCompressor:
    """Return a reranker that shows its scores to whoever called it, whatever its own style."""
    if isinstance(reranker, M3ColbertReranker):
        return reranker.model_copy(update={"scores": "nested"})
    return reranker


def with_reranker_score(documents: Sequence[Document], style: ScoreStyle) -> list[Document]:
    """Return copies with the reranker's score, where it wrote one, among their scores.

    LangChain's rerankers write it into ``metadata["relevance_score"]``; "off" takes it away.
    """
    found = []
    for document in documents:
        metadata = dict(document.metadata)
        score = metadata.get("relevance_score")
        scores = read_scores(metadata)
        if isinstance(score, int | float):
            scores["reranker"] = float(score)
        if style == "off":
            metadata.pop("relevance_score", None)
        metadata = write_scores(metadata, scores, style)
        found.append(document.model_copy(update={"metadata": metadata}))
    return found
