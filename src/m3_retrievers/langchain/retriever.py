"""M3EnsembleRetriever: recall, fuse, reorder, inside a LangChain chain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, Unpack

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams, RetrieverLike
from langchain_core.runnables import Runnable
from pydantic import BeforeValidator, ConfigDict, SkipValidation, model_validator
from typing_extensions import override

from m3_retrievers.checks import check_k
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.frameworks import ensemble
from m3_retrievers.frameworks.fields import Checked, K, RerankDepth, Scores
from m3_retrievers.frameworks.options import HybridOptions, hybrid_retriever, opened_retriever
from m3_retrievers.habits import check_others, guided
from m3_retrievers.index.base import Filter, Index
from m3_retrievers.langchain import names
from m3_retrievers.langchain.checks import check_question
from m3_retrievers.langchain.documents import make_documents, restyled, to_records
from m3_retrievers.langchain.filtering import TakesFilter
from m3_retrievers.langchain.fused import afuse_all, fuse_all
from m3_retrievers.langchain.legs import asearch, ls_params, search
from m3_retrievers.langchain.reranker import nested, with_reranker_score
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.plan import Fusion

_MADE_BY = "M3EnsembleRetriever.from_documents"
# what from_documents takes beside documents and encoder
_OPTIONS = (
    *("k", "reranker", "rerank_depth", "scores", "batch_size", "show_progress"),
    *HybridOptions.__annotations__,
)


def _checked_hybrid(given: Any) -> Any:
    return None if given is None else ensemble.check_hybrid(given, made_by=_MADE_BY)


def _checked_retrievers(given: Any) -> Any:
    return None if given is None else ensemble.check_retrievers(given, Runnable)


def _checked_reranker(given: Any) -> Any:
    return ensemble.check_reranker(given, BaseDocumentCompressor, example="M3ColbertReranker")


@guided(**names.OF_ENSEMBLE)
class M3EnsembleRetriever(TakesFilter, Checked, BaseRetriever):
    """Hybrid retrieval behind LangChain's retriever interface, over one of two sources.

    ``from_documents``, ``from_texts``, ``from_index``, ``load``, or
    ``M3EnsembleRetriever(HybridRetriever(…))``: all legs read one index, and the query is
    encoded once.

    ``retrievers=[…]``: retrievers of any kind are run as they are and their documents fused
    (``fusion``, RRF unless another is given; weights: of RRF, a number a retriever). Each
    returns as many documents as it is set up to; give it more than k. Two documents are the
    same if their ids are, or text and metadata; id_key: a metadata entry that decides instead.

    reranker: any document compressor; it reorders the best ``rerank_depth`` candidates of
    either source, and its score, if it writes one, is in the scores as ``reranker``.

    k: how many documents to return, also per call; so is ``filter``, a metadata filter, which
    applies before each leg's top k; a retriever that cannot do that makes it an error.

    Every document returned is a copy with its scores: each mode's own and ``hybrid``, or
    ``fusion``. scores: ``"nested"`` writes ``metadata["scores"]``, ``"flat"`` an entry a score
    such as ``metadata["score_dense"]``, ``"off"`` none: MultiQueryRetriever, which removes
    duplicates by comparing whole documents, needs that. Callbacks see each leg as a child run.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    hybrid: Annotated[HybridRetriever | None, SkipValidation, BeforeValidator(_checked_hybrid)] = (
        None
    )
    retrievers: Annotated[list[RetrieverLike] | None, BeforeValidator(_checked_retrievers)] = None
    reranker: Annotated[
        BaseDocumentCompressor | None, SkipValidation, BeforeValidator(_checked_reranker)
    ] = None
    rerank_depth: RerankDepth = ensemble.RERANK_DEPTH
    fusion: Annotated[Fusion | None, SkipValidation] = None
    weights: Annotated[Sequence[float] | None, SkipValidation] = None
    id_key: str | None = None
    scores: Scores = "nested"
    k: K = 4

    def __init__(self, hybrid: HybridRetriever | None = None, **options: Any) -> None:
        super().__init__(hybrid=hybrid, **options)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        ensemble.check_sources(
            self.hybrid,
            self.retrievers,
            made_by=_MADE_BY,
            retrievers_only={
                "fusion": self.fusion,
                "weights": self.weights,
                "id_key": self.id_key,
            },
        )
        ensemble.chosen_fusion(self.fusion, self.weights, count=len(self.retrievers or ()))
        return self

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        encoder: Encoder | str | Path,
        *,
        k: int = 4,
        reranker: BaseDocumentCompressor | None = None,
        rerank_depth: int = ensemble.RERANK_DEPTH,
        scores: Scores = "nested",
        batch_size: int = 256,
        show_progress: bool = False,
        **options: Unpack[HybridOptions],
    ) -> M3EnsembleRetriever:
        """Return a retriever over a new index of the documents; their ids are kept, or made up.

        encoder: the model, or its name. options: legs, recall, fusion, weights, as for
        ``HybridRetriever``; bm25 or tokenizer, for a BM25 leg. batch_size, show_progress: as
        for ``HybridRetriever.add``. Raises DuplicateIdError for an id given twice.
        """
        check_k(k)
        hybrid = hybrid_retriever(encoder, options=options, method=cls.from_documents)
        made = cls(hybrid, k=k, reranker=reranker, rerank_depth=rerank_depth, scores=scores)
        hybrid.upsert(to_records(documents), batch_size=batch_size, show_progress=show_progress)
        return made

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        encoder: Encoder | str | Path,
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Sequence[str] | None = None,
        **options: Any,
    ) -> M3EnsembleRetriever:
        """Return a retriever over a new index of the texts; options as ``from_documents``."""
        check_others(options, cls.from_texts, also=_OPTIONS)
        documents = make_documents(texts, metadatas, ids)
        return cls.from_documents(documents, encoder, **options)

    @classmethod
    def from_index(
        cls,
        index: Index,
        encoder: Encoder | str | Path,
        *,
        k: int = 4,
        reranker: BaseDocumentCompressor | None = None,
        rerank_depth: int = ensemble.RERANK_DEPTH,
        scores: Scores = "nested",
        **options: Unpack[HybridOptions],
    ) -> M3EnsembleRetriever:
        """Return a retriever over an index that is there already; see ``HybridRetriever``."""
        hybrid = hybrid_retriever(encoder, index, options=options, method=cls.from_index)
        return cls(hybrid, k=k, reranker=reranker, rerank_depth=rerank_depth, scores=scores)

    def save(self, folder: str | Path) -> None:
        """Write index and settings to a folder; see ``HybridRetriever.save``.

        Raises InputError for an ensemble of retrievers, which keep their documents themselves.
        """
        ensemble.check_savable(self.hybrid).save(folder)

    @classmethod
    def load(
        cls, folder: str | Path, encoder: Encoder | str | Path, **options: Any
    ) -> M3EnsembleRetriever:
        """Return the retriever over what a folder holds; see ``HybridRetriever.load``.

        options: k, reranker, rerank_depth, scores and LangChain's own, which are not saved.
        """
        return cls(HybridRetriever.load(folder, encoder), **options)

    @classmethod
    def open(
        cls,
        path: str | Path | Index,
        encoder: Encoder | str | Path,
        *,
        k: int = 4,
        reranker: BaseDocumentCompressor | None = None,
        rerank_depth: int = ensemble.RERANK_DEPTH,
        scores: Scores = "nested",
        **options: Unpack[HybridOptions],
    ) -> M3EnsembleRetriever:
        """Return a retriever over a durable index, made if missing; see ``HybridRetriever.open``.

        Documents get in through ``retriever.hybrid``, or an M3VectorStore of the same path.
        """
        hybrid = opened_retriever(path, encoder, options=options, method=cls.open)
        return cls(hybrid, k=k, reranker=reranker, rerank_depth=rerank_depth, scores=scores)

    @override
    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Document]:
        k = self._checked(query, k)
        depth = k if self.reranker is None else max(k, self.rerank_depth)
        if self.hybrid is not None:
            found = search(self.hybrid, query, k=depth, filter=filter, run_manager=run_manager)
        else:
            found = fuse_all(**self._fusing(), query=query, filter=filter, run_manager=run_manager)
        if self.reranker is None:
            return [restyled(document, self.scores) for document in found[:k]]
        callbacks = run_manager.get_child("reranker")
        ordered = nested(self.reranker).compress_documents(
            found[:depth], query, callbacks=callbacks
        )
        return with_reranker_score(ordered[:k], self.scores)

    @override
    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Document]:
        k = self._checked(query, k)
        depth = k if self.reranker is None else max(k, self.rerank_depth)
        if self.hybrid is not None:
            found = await asearch(
                self.hybrid, query, k=depth, filter=filter, run_manager=run_manager
            )
        else:
            found = await afuse_all(
                **self._fusing(), query=query, filter=filter, run_manager=run_manager
            )
        if self.reranker is None:
            return [restyled(document, self.scores) for document in found[:k]]
        callbacks = run_manager.get_child("reranker")
        ordered = await nested(self.reranker).acompress_documents(
            found[:depth], query, callbacks=callbacks
        )
        return with_reranker_score(ordered[:k], self.scores)

    def _checked(self, query: str, k: int | None) -> int:
        """Return how many documents this call returns, its question checked too."""
        check_question(query)
        chosen = self.k if k is None else k
        check_k(chosen)
        return chosen

    def _fusing(self) -> dict[str, Any]:
        retrievers = self.retrievers or []
        fusion = ensemble.chosen_fusion(self.fusion, self.weights, count=len(retrievers))
        return {"retrievers": retrievers, "fusion": fusion, "id_key": self.id_key}

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        return params if self.hybrid is None else ls_params(params, self.hybrid)
