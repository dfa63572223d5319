"""Lexical retrieval by itself: M3's learned term weights, or BM25 without any model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from pydantic import ConfigDict, SkipValidation
from typing_extensions import override

from m3_retrievers.checks import check_k
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.frameworks.fields import Checked, EncoderField, K, Scores
from m3_retrievers.frameworks.inputs import check_leg
from m3_retrievers.frameworks.options import Tokenizer
from m3_retrievers.frameworks.scores import ScoreStyle
from m3_retrievers.habits import check_others, guided
from m3_retrievers.index.base import Filter, Index
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.langchain import names
from m3_retrievers.langchain.checks import check_question
from m3_retrievers.langchain.documents import from_ranking, make_documents, restyled, to_records
from m3_retrievers.langchain.filtering import TakesFilter
from m3_retrievers.lexical.bm25 import BM25, as_bm25
from m3_retrievers.retrieval.storing import store
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import Representations


@guided(**names.OF_LEXICAL)
class LexicalRetriever(TakesFilter, Checked, BaseRetriever):
    """What the two have in common: one lexical leg of one index.

    index: keeps the documents. k: how many to return, also per call, where ``filter`` takes a
    metadata filter. Documents that share no term with the query are never returned. scores:
    ``"nested"``, ``"flat"`` or ``"off"``, as for ``M3EnsembleRetriever``.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    mode: ClassVar[Mode]

    index: SkipValidation[Index]
    k: K = 4
    scores: Scores = "nested"

    def __init__(self, index: Index, **options: Any) -> None:
        made_by = f"{type(self).__name__}.from_documents"
        check_leg(index, self.mode, owner=type(self).__name__, made_by=made_by)
        super().__init__(index=index, **options)

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
        return await in_thread(self._search, query, self.k if k is None else k, filter)

    def _search(self, query: str, k: int, filter: Filter | None) -> list[Document]:
        check_k(k)
        check_question(query)
        ranking = self.index.recall(self._query(query), self.mode, k=k, filter=filter)
        found = from_ranking(self.index, ranking, self.mode)
        return [restyled(document, self.scores) for document in found]

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        params["ls_vector_store_provider"] = type(self.index).__name__
        return params


@guided()
class M3SparseRetriever(LexicalRetriever):
    """Retrieval by M3's learned term weights; ``metadata["scores"]["sparse"]`` says how well.

    encoder: a model with a sparse head, or its name; the one the index was built with.
    """

    mode = "sparse"

    encoder: EncoderField

    def __init__(self, index: Index, encoder: Encoder | str | Path, **options: Any) -> None:
        super().__init__(index, encoder=encoder, **options)

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        encoder: Encoder | str | Path,
        *,
        k: int = 4,
        scores: ScoreStyle = "nested",
        batch_size: int = 256,
        show_progress: bool = False,
        **others: Any,
    ) -> Self:
        """Return a retriever over new documents; their ids are kept, or made up.

        Raises MissingHeadError for a model without a sparse head, DuplicateIdError for an id
        given twice, InputError for an option that is not known.
        """
        check_others(others, cls.from_documents)
        made = cls(LocalIndex(modes=("sparse",)), encoder, k=k, scores=scores)
        store(
            made.index,
            made.encoder,
            to_records(documents),
            replace=False,
            batch_size=batch_size,
            show_progress=show_progress,
        )
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
    ) -> Self:
        """Return a retriever over new texts; options as ``from_documents``."""
        also = ("k", "scores", "batch_size", "show_progress")
        check_others(options, cls.from_texts, also=also)
        return cls.from_documents(make_documents(texts, metadatas, ids), encoder, **options)

    def _query(self, text: str) -> Query:
        return Query(text, self.encoder.encode_query(text, outputs=("sparse",)))

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = super()._get_ls_params(**kwargs)
        params["ls_embedding_provider"] = "m3_retrievers"
        params["ls_embedding_model"] = self.encoder.name
        return params


@guided()
class BM25Retriever(LexicalRetriever):
    """Retrieval by BM25, without a model; ``metadata["scores"]["bm25"]`` says how well.

    Variant, idf and tokenizer are settings of the ``BM25`` it is made with.
    """

    mode = "bm25"

    def __init__(self, index: Index, **options: Any) -> None:
        super().__init__(index, **options)

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        *,
        bm25: BM25 | None = None,
        tokenizer: Tokenizer | None = None,
        k: int = 4,
        scores: ScoreStyle = "nested",
        **others: Any,
    ) -> BM25Retriever:
        """Return a retriever over new documents; their ids are kept, or made up.

        bm25: None is ``BM25()``. tokenizer: the same for ``BM25(tokenizer=…)``: a callable or a
        language such as ``"german"``. Raises
        DuplicateIdError for an id given twice, InputError for an option that is not known.
        """
        check_others(others, cls.from_documents)
        index = LocalIndex(modes=(), weighting=as_bm25(bm25, tokenizer))
        made = cls(index, k=k, scores=scores)
        index.add(to_records(documents), Representations())
        return made

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        metadatas: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        ids: Sequence[str] | None = None,
        **options: Any,
    ) -> BM25Retriever:
        """Return a retriever over new texts; options as ``from_documents``."""
        check_others(options, cls.from_texts, also=("bm25", "tokenizer", "k", "scores"))
        return cls.from_documents(make_documents(texts, metadatas, ids), **options)

    def _query(self, text: str) -> Query:
        return Query(text)
