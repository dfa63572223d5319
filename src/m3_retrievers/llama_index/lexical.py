"""Lexical retrieval by itself: M3's learned term weights, or BM25 without any model."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle

from m3_retrievers.checks import check_k
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.index.base import Index
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.llama_index.filters import Filters, to_filter
from m3_retrievers.llama_index.nodes import from_ranking, records_of
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import Representations


class LexicalRetriever(BaseRetriever):
    """What the two have in common: one lexical leg of one index.

    index: keeps the nodes. k: how many to return. filters: LlamaIndex's MetadataFilters, or
    a mapping in the core's language. Nodes that share no term with the query are never
    returned.
    """

    mode: ClassVar[Mode]

    def __init__(
        self,
        index: Index,
        *,
        k: int = 4,
        filters: Filters = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
    ) -> None:
        check_k(k)
        self.index = index
        self.k = k
        self._filter = to_filter(filters)
        compile_filter(self._filter)  # what is wrong with it shows now, not at the first question
        super().__init__(callback_manager=callback_manager, verbose=verbose)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.index!r}, k={self.k})"

    @abstractmethod
    def _query(self, text: str) -> Query:
        """Return the query with what the leg needs of it."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        query = self._query(query_bundle.query_str)
        ranking = self.index.recall(query, self.mode, k=self.k, filter=self._filter)
        return [*from_ranking(self.index, ranking, self.mode)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class M3SparseRetriever(LexicalRetriever):
    """Retrieval by M3's learned term weights; ``metadata["scores"]["sparse"]`` says how well.

    encoder: a model with a sparse head, and the one the index was built with. Other
    arguments: index, k, filters, callback_manager, verbose.
    """

    mode = "sparse"

    def __init__(
        self,
        index: Index,
        *,
        encoder: M3Encoder,
        k: int = 4,
        filters: Filters = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
    ) -> None:
        self.encoder = encoder
        super().__init__(
            index, k=k, filters=filters, callback_manager=callback_manager, verbose=verbose
        )

    @classmethod
    def from_nodes(
        cls,
        nodes: Iterable[BaseNode],
        *,
        encoder: M3Encoder,
        k: int = 4,
        filters: Filters = None,
        callback_manager: CallbackManager | None = None,
        show_progress: bool = False,
    ) -> M3SparseRetriever:
        """Return a retriever over new nodes.

        Raises MissingHeadError for a model without a sparse head, DuplicateIdError for an id
        given twice.
        """
        check_k(k)
        records = records_of(nodes)
        texts = [record.text for record in records]
        index = LocalIndex(modes=("sparse",))
        index.add(
            records,
            encoder.encode_documents(texts, outputs=("sparse",), show_progress=show_progress),
        )
        return cls(index, encoder=encoder, k=k, filters=filters, callback_manager=callback_manager)

    def _query(self, text: str) -> Query:
        return Query(text, self.encoder.encode_query(text, outputs=("sparse",)))


class BM25Retriever(LexicalRetriever):
    """Retrieval by BM25, without a model; ``metadata["scores"]["bm25"]`` says how well.

    Variant, idf and tokenizer are settings of the ``BM25`` it is made with.
    """

    mode = "bm25"

    @classmethod
    def from_nodes(
        cls,
        nodes: Iterable[BaseNode],
        *,
        bm25: BM25 | None = None,
        k: int = 4,
        filters: Filters = None,
        callback_manager: CallbackManager | None = None,
    ) -> BM25Retriever:
        """Return a retriever over new nodes.

        bm25: None is ``BM25()``. Raises DuplicateIdError for an id given twice.
        """
        check_k(k)
        index = LocalIndex(modes=(), weighting=bm25 or BM25())
        index.add(records_of(nodes), Representations())
        return cls(index, k=k, filters=filters, callback_manager=callback_manager)

    def _query(self, text: str) -> Query:
        return Query(text)
