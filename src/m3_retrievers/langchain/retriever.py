"""M3EnsembleRetriever: recall, fuse, reorder, inside a LangChain chain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams, RetrieverLike
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field, InstanceOf, model_validator
from typing_extensions import override

from m3_retrievers.checks import check_k
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.frameworks.ensemble import FOREIGN_FUSION, check_doors, named_legs
from m3_retrievers.index.base import Filter, Index
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.langchain.documents import documents_of, records_of
from m3_retrievers.langchain.fused import fuse
from m3_retrievers.langchain.legs import asearch, ls_params, search
from m3_retrievers.langchain.lexical import LexicalRetriever
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.plan import DEFAULT_LEGS, Fusion, HybridWeights, Mode, Recall


class M3EnsembleRetriever(BaseRetriever):
    """Hybrid retrieval behind LangChain's retriever interface; two doors lead to it.

    ``from_documents``, ``from_texts``, ``from_index``, or ``hybrid=HybridRetriever(…)``: all
    legs read one index, and the query is encoded once.

    ``retrievers=[…]``: retrievers of any kind are run as they are and their documents fused
    (``fusion``, RRF unless another is given), then reordered by ``reranker`` if there is one.
    Each leg returns as many documents as it is set up to; give it more than k.

    k: how many documents to return, also per call; so is ``filter``, a metadata filter.
    id_key: a metadata entry that identifies documents, where foreign legs share no ids.

    Every document returned is a copy, and ``metadata["scores"]`` says how it got there: each
    mode's own score and ``hybrid``, or ``fusion``. Callbacks see each leg as a child run.
    """

    model_config = ConfigDict(extra="forbid")

    hybrid: InstanceOf[HybridRetriever] | None = None
    retrievers: list[RetrieverLike] | None = None
    reranker: BaseDocumentCompressor | None = None
    fusion: Fusion | None = None
    id_key: str | None = None
    k: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _one_door(self) -> Self:
        check_doors(
            self.hybrid,
            self.retrievers,
            first="hybrid=",
            made_by="from_documents",
            foreign_only={
                "reranker": self.reranker,
                "fusion": self.fusion,
                "id_key": self.id_key,
            },
        )
        return self

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        *,
        encoder: M3Encoder,
        k: int = 4,
        legs: Sequence[Mode] = DEFAULT_LEGS,
        recall: Recall | None = None,
        fusion: Fusion | None = None,
        weights: HybridWeights | None = None,
        show_progress: bool = False,
    ) -> M3EnsembleRetriever:
        """Return a retriever over a new index of the documents; their ids are kept, or made up.

        legs, recall, fusion, weights: as for ``HybridRetriever``. Raises DuplicateIdError for
        an id given twice.
        """
        check_k(k)
        hybrid = HybridRetriever(encoder, legs=legs, recall=recall, fusion=fusion, weights=weights)
        hybrid.upsert(records_of(documents), show_progress=show_progress)
        return cls(hybrid=hybrid, k=k)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        *,
        encoder: M3Encoder,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
        k: int = 4,
        legs: Sequence[Mode] = DEFAULT_LEGS,
        recall: Recall | None = None,
        fusion: Fusion | None = None,
        weights: HybridWeights | None = None,
        show_progress: bool = False,
    ) -> M3EnsembleRetriever:
        """Return a retriever over a new index of the texts; see ``from_documents``."""
        return cls.from_documents(
            documents_of(texts, metadatas, ids),
            encoder=encoder,
            k=k,
            legs=legs,
            recall=recall,
            fusion=fusion,
            weights=weights,
            show_progress=show_progress,
        )

    @classmethod
    def from_index(
        cls,
        index: Index,
        *,
        encoder: M3Encoder,
        k: int = 4,
        legs: Sequence[Mode] = DEFAULT_LEGS,
        recall: Recall | None = None,
        fusion: Fusion | None = None,
        weights: HybridWeights | None = None,
    ) -> M3EnsembleRetriever:
        """Return a retriever over an index that is there already; see ``HybridRetriever``."""
        hybrid = HybridRetriever(
            encoder, index, legs=legs, recall=recall, fusion=fusion, weights=weights
        )
        return cls(hybrid=hybrid, k=k)

    @override
    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Document]:
        k = self._k(k)
        if self.hybrid is not None:
            return search(self.hybrid, query, k=k, filter=filter, run_manager=run_manager)
        found = {
            name: leg.invoke(query, {"callbacks": run_manager.get_child(name)}, **_own(leg, filter))
            for name, leg in named_legs(self.retrievers or ()).items()
        }
        fused = self._fuse(found, filter)
        if self.reranker is None:
            return fused[:k]
        callbacks = run_manager.get_child("reranker")
        return list(self.reranker.compress_documents(fused, query, callbacks=callbacks))[:k]

    @override
    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Document]:
        k = self._k(k)
        if self.hybrid is not None:
            return await asearch(self.hybrid, query, k=k, filter=filter, run_manager=run_manager)
        named = named_legs(self.retrievers or ())
        runs = [
            leg.ainvoke(query, {"callbacks": run_manager.get_child(name)}, **_own(leg, filter))
            for name, leg in named.items()
        ]
        lists = await asyncio.gather(*runs)
        found = dict(zip(named, lists, strict=True))
        fused = await run_in_executor(None, self._fuse, found, filter)
        if self.reranker is None:
            return fused[:k]
        callbacks = run_manager.get_child("reranker")
        return list(await self.reranker.acompress_documents(fused, query, callbacks=callbacks))[:k]

    def _k(self, k: int | None) -> int:
        chosen = self.k if k is None else k
        check_k(chosen)
        return chosen

    def _fuse(
        self, found: Mapping[str, Sequence[Document]], filter: Filter | None
    ) -> list[Document]:
        """Filter here too: what a foreign leg returns has not been through this filter."""
        passes = compile_filter(filter)
        admitted = {name: [d for d in docs if passes(d.metadata)] for name, docs in found.items()}
        return fuse(admitted, self.fusion or FOREIGN_FUSION, id_key=self.id_key)

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        return params if self.hybrid is None else ls_params(params, self.hybrid)


def _own(leg: RetrieverLike, filter: Filter | None) -> dict[str, Any]:
    """Return the filter as an option for those legs that know this package's filters."""
    knows = isinstance(leg, LexicalRetriever | M3EnsembleRetriever)
    return {"filter": filter} if knows and filter is not None else {}
