"""Lexical retrieval by itself: M3's learned term weights, or BM25 without any model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field, InstanceOf, SkipValidation
from typing_extensions import override

from m3_retrievers.checks import check_k
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.index.base import Filter, Index
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.langchain.checks import check_encoder, check_question
from m3_retrievers.langchain.documents import documents_of, from_ranking, records_of
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import Representations


class LexicalRetriever(BaseRetriever):
    """What the two have in common: one lexical leg of one index.

    index: keeps the documents. k: how many to return, also per call, where ``filter`` takes a
    metadata filter. Documents that share no term with the query are never returned.
    """

    # an option that is not known is refused: ignored, it would mislead
    model_config = ConfigDict(extra="forbid")

    mode: ClassVar[Mode]

    index: SkipValidation[Index]
    k: int = Field(default=4, ge=1)

    @abstractmethod
    def _query(self, text: str) -> Query:
        """Return the query with what the leg needs of it."""

    @override
    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Document]:
        return self._search(query, self.k if k is None else k, filter)

    @override
    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        filter: Filter | None = None,
    ) -> list[Document]:
        return await run_in_executor(None, self._search, query, self.k if k is None else k, filter)

    def _search(self, query: str, k: int, filter: Filter | None) -> list[Document]:
        check_k(k)
        check_question(query)
        ranking = self.index.recall(self._query(query), self.mode, k=k, filter=filter)
        return from_ranking(self.index, ranking, self.mode)

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = type(self.index).__name__
        return params


class M3SparseRetriever(LexicalRetriever):
    """Retrieval by M3's learned term weights; ``metadata["scores"]["sparse"]`` says how well.

    encoder: a model with a sparse head, and the one the index was built with.
    """

    mode = "sparse"

    encoder: InstanceOf[M3Encoder]

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        *,
        encoder: M3Encoder,
        k: int = 4,
        show_progress: bool = False,
    ) -> M3SparseRetriever:
        """Return a retriever over new documents; their ids are kept, or made up.

        Raises MissingHeadError for a model without a sparse head, DuplicateIdError for an id
        given twice.
        """
        check_encoder(encoder)
        check_k(k)
        records = records_of(documents)
        texts = [record.text for record in records]
        index = LocalIndex(modes=("sparse",))
        index.add(
            records,
            encoder.encode_documents(texts, outputs=("sparse",), show_progress=show_progress),
        )
        return cls(index=index, encoder=encoder, k=k)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        *,
        encoder: M3Encoder,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
        k: int = 4,
        show_progress: bool = False,
    ) -> M3SparseRetriever:
        """Return a retriever over new texts; see ``from_documents``."""
        documents = documents_of(texts, metadatas, ids)
        return cls.from_documents(documents, encoder=encoder, k=k, show_progress=show_progress)

    def _query(self, text: str) -> Query:
        return Query(text, self.encoder.encode_query(text, outputs=("sparse",)))

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        params["ls_embedding_provider"] = "m3_retrievers"
        params["ls_embedding_model"] = self.encoder.name
        return params


class BM25Retriever(LexicalRetriever):
    """Retrieval by BM25, without a model; ``metadata["scores"]["bm25"]`` says how well.

    Variant, idf and tokenizer are settings of the ``BM25`` it is made with.
    """

    mode = "bm25"

    @classmethod
    def from_documents(
        cls, documents: Iterable[Document], *, bm25: BM25 | None = None, k: int = 4
    ) -> BM25Retriever:
        """Return a retriever over new documents; their ids are kept, or made up.

        bm25: None is ``BM25()``. Raises DuplicateIdError for an id given twice.
        """
        check_k(k)
        index = LocalIndex(modes=(), weighting=bm25 or BM25())
        index.add(records_of(documents), Representations())
        return cls(index=index, k=k)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        *,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
        bm25: BM25 | None = None,
        k: int = 4,
    ) -> BM25Retriever:
        """Return a retriever over new texts; see ``from_documents``."""
        return cls.from_documents(documents_of(texts, metadatas, ids), bm25=bm25, k=k)

    def _query(self, text: str) -> Query:
        return Query(text)
