"""M3DocumentIndex: a HybridRetriever as LangChain's updatable document index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.indexing import DocumentIndex, UpsertResponse
from langchain_core.indexing.base import DeleteResponse
from langchain_core.retrievers import LangSmithRetrieverParams
from pydantic import ConfigDict, Field, InstanceOf
from typing_extensions import override

from m3_retrievers.checks import check_no_others
from m3_retrievers.errors import InputError
from m3_retrievers.index.base import Filter
from m3_retrievers.langchain.documents import records_of, to_document
from m3_retrievers.langchain.legs import asearch, ls_params, search
from m3_retrievers.retrieval.retriever import HybridRetriever


class M3DocumentIndex(DocumentIndex):
    """A retriever that documents can be put into and taken out of.

    Retrieves as ``M3EnsembleRetriever`` does over the same ``hybrid``, with ``k`` and
    ``filter`` per call. ``get`` returns documents as they were stored. The async methods run
    in a thread. (LangChain calls its base class beta; its shape may change.)
    """

    model_config = ConfigDict(extra="forbid")

    hybrid: InstanceOf[HybridRetriever]
    k: int = Field(default=4, ge=1)

    def upsert(
        self,
        items: Sequence[Document],
        /,
        *,
        batch_size: int = 256,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> UpsertResponse:
        """Store documents, replacing those whose id is known; an id is made up where none is.

        batch_size, show_progress: as for ``M3VectorStore.add_documents``.
        """
        check_no_others(kwargs, owner="M3DocumentIndex.upsert")
        stored = self.hybrid.upsert(
            records_of(items), batch_size=batch_size, show_progress=show_progress
        )
        return UpsertResponse(succeeded=stored, failed=[])

    def delete(self, ids: Sequence[str] | None = None, **kwargs: Any) -> DeleteResponse:
        """Remove documents, passing over unknown ids; raises InputError without ids."""
        if ids is None or kwargs:
            raise InputError(
                f"delete expects a list of ids and nothing else, got {ids!r} and {kwargs!r}."
            )
        gone = self.hybrid.delete(ids)
        return DeleteResponse(num_deleted=len(gone), succeeded=gone, num_failed=0, failed=[])

    def get(self, ids: Sequence[str], /, **kwargs: Any) -> list[Document]:
        """Return documents in the order asked for, passing over unknown ids."""
        if kwargs:
            raise InputError(f"get expects ids and nothing else, got {sorted(kwargs)}.")
        return [to_document(record) for record in self.hybrid.get(ids)]

    @override
    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Document]:
        k = self.k if k is None else k
        return search(self.hybrid, query, k=k, filter=filter, run_manager=run_manager)

    @override
    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Document]:
        k = self.k if k is None else k
        return await asearch(self.hybrid, query, k=k, filter=filter, run_manager=run_manager)

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        return ls_params(super()._get_ls_params(**kwargs), self.hybrid)
