"""M3DocumentIndex: a HybridRetriever as LangChain's updatable document index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Unpack

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.indexing import DocumentIndex, UpsertResponse
from langchain_core.indexing.base import DeleteResponse
from langchain_core.retrievers import LangSmithRetrieverParams
from pydantic import BeforeValidator, ConfigDict, SkipValidation
from typing_extensions import override

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.frameworks.fields import Checked, K, Scores
from m3_retrievers.frameworks.inputs import as_hybrid
from m3_retrievers.frameworks.options import HybridOptions, opened_retriever
from m3_retrievers.habits import check_others, guided
from m3_retrievers.index.base import Filter, Index
from m3_retrievers.langchain import names
from m3_retrievers.langchain.documents import restyled, to_document, to_records
from m3_retrievers.langchain.filtering import TakesFilter
from m3_retrievers.langchain.legs import asearch, ls_params, search
from m3_retrievers.retrieval.retriever import HybridRetriever


def _hybrid(given: Any) -> HybridRetriever:
    return as_hybrid(
        given, owner="M3DocumentIndex", made_by="M3EnsembleRetriever.from_documents(…).hybrid"
    )


@guided(**names.OF_DOCUMENT_INDEX)
class M3DocumentIndex(TakesFilter, Checked, DocumentIndex):
    """A retriever that documents can be put into and taken out of.

    hybrid: a HybridRetriever, or for an empty index an encoder or a model's name. Retrieves as
    ``M3EnsembleRetriever`` does over the same ``hybrid``, with ``k`` and ``filter`` per call,
    and ``scores`` as there. ``get`` returns documents as they were stored. The async methods
    run in a thread. (LangChain calls its base class beta; its shape may change.)
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    hybrid: Annotated[HybridRetriever, SkipValidation, BeforeValidator(_hybrid)]
    k: K = 4
    scores: Scores = "nested"

    def __init__(self, hybrid: HybridRetriever | Encoder | str | Path, **options: Any) -> None:
        super().__init__(hybrid=hybrid, **options)

    @classmethod
    def open(
        cls,
        path: str | Path | Index,
        encoder: Encoder | str | Path,
        *,
        k: int = 4,
        scores: Scores = "nested",
        **options: Unpack[HybridOptions],
    ) -> M3DocumentIndex:
        """Return a document index whose every change is on the disk.

        path: of the file, made if missing. options: as for ``HybridRetriever.open``.
        """
        hybrid = opened_retriever(path, encoder, options=options, method=cls.open)
        return cls(hybrid, k=k, scores=scores)

    def __len__(self) -> int:
        return len(self.hybrid)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and id in self.hybrid.index

    def __bool__(self) -> bool:
        return True  # an empty index is one too

    @property
    def ids(self) -> list[str]:
        """The ids of all documents, in order of insertion."""
        return list(self.hybrid.index.ids)

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
        check_others(kwargs, self.upsert)
        stored = self.hybrid.upsert(
            to_records(items), batch_size=batch_size, show_progress=show_progress
        )
        return UpsertResponse(succeeded=stored, failed=[])

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> DeleteResponse:
        """Remove the documents of these ids that pass the filter, passing over unknown ids.

        Raises InputError without either: nothing is emptied by an argument that was forgotten.
        """
        check_others(kwargs, self.delete)
        gone = self.hybrid.delete(ids, filter=filter)
        return DeleteResponse(num_deleted=len(gone), succeeded=gone, num_failed=0, failed=[])

    def get(self, ids: Sequence[str], /, **kwargs: Any) -> list[Document]:
        """Return documents in the order asked for, passing over unknown ids."""
        check_others(kwargs, self.get)
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
        found = search(self.hybrid, query, k=k, filter=filter, run_manager=run_manager)
        return [restyled(document, self.scores) for document in found]

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
        found = await asearch(self.hybrid, query, k=k, filter=filter, run_manager=run_manager)
        return [restyled(document, self.scores) for document in found]

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        return ls_params(super()._get_ls_params(**kwargs), self.hybrid)
