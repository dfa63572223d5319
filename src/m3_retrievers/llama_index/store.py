"""M3VectorStore: a HybridRetriever as a LlamaIndex vector store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.simple import DEFAULT_VECTOR_STORE, NAMESPACE_SEP
from llama_index.core.vector_stores.types import (
    DEFAULT_PERSIST_DIR,
    DEFAULT_PERSIST_FNAME,
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from pydantic import InstanceOf

from m3_retrievers.checks import check_ids, check_no_others
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.index.base import Filter, Index
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.llama_index.embeddings import M3Embedding
from m3_retrievers.llama_index.filters import all_of, to_filter
from m3_retrievers.llama_index.nodes import REF_DOC_ID, records_of, to_node
from m3_retrievers.llama_index.query import answer
from m3_retrievers.retrieval.retriever import HybridRetriever


class M3VectorStore(BasePydanticVectorStore):
    """An updatable store that searches by vectors, by terms, or by the whole hybrid score.

    hybrid: ``HybridRetriever(encoder)`` for an empty store, or one that is filled. The modes
    of a query: ``default`` (dense), ``sparse`` (M3's term weights), ``text_search`` (BM25, if
    ``"bm25"`` is among the retriever's legs) and ``hybrid``. The async methods run in a thread.

    The store encodes nodes and questions itself, each once; embeddings on nodes are not
    read. LlamaIndex wants some all the same: give an index over the store
    ``embed_model=store.embed_model``, and an ingestion pipeline the same as its last
    transformation (without one the pipeline stores nothing); it costs nothing.

    is_embedding_query: True makes LlamaIndex embed the question and hand the vector over,
    which then is the dense part of the query; needed for HyDE.

    Nodes come back as they were stored. For ``metadata["scores"]`` retrieve with
    ``M3EnsembleRetriever(store.hybrid)``.
    """

    hybrid: InstanceOf[HybridRetriever] = Field(exclude=True)
    stores_text: bool = Field(default=True, exclude=True)
    is_embedding_query: bool = False

    def __init__(self, hybrid: HybridRetriever, *, is_embedding_query: bool = False) -> None:
        super().__init__(hybrid=hybrid, is_embedding_query=is_embedding_query)  # type: ignore[call-arg]

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes down for this class."""
        return "M3VectorStore"

    @property
    def client(self) -> Index:
        """The index behind the store."""
        return self.hybrid.index

    @property
    def embed_model(self) -> M3Embedding:
        """The embedding for an index over this store: it embeds questions, and no nodes."""
        return _QuestionsOnly(encoder=self.hybrid.encoder)

    # Nodes in and out

    def add(
        self,
        nodes: Sequence[BaseNode],
        *,
        batch_size: int = 256,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Store nodes, replacing those whose id is known; returns their ids.

        Each batch is stored before the next is encoded. Raises DuplicateIdError for an id
        given twice.
        """
        check_no_others(kwargs, owner="M3VectorStore")
        records = records_of(nodes)
        return self.hybrid.upsert(records, batch_size=batch_size, show_progress=show_progress)

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes; see ``add``."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove the nodes of one document; an unknown one has none."""
        check_no_others(delete_kwargs, owner="M3VectorStore")
        self.hybrid.delete(self._ids(None, {REF_DOC_ID: {"$eq": ref_doc_id}}))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove the nodes of one document; see ``delete``."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Remove the nodes of these ids that pass the filters, passing over unknown ids.

        Raises InputError without either: nothing is emptied by an argument that was
        forgotten; that is what ``clear`` is for.
        """
        check_no_others(delete_kwargs, owner="M3VectorStore")
        if node_ids is None and filters is None:
            raise InputError(
                "delete_nodes expects node_ids or filters, got neither. To remove all, use clear."
            )
        self.hybrid.delete(self._ids(node_ids, to_filter(filters)))

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Remove nodes; see ``delete_nodes``."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def clear(self) -> None:
        """Remove all nodes."""
        self.hybrid.delete(self.hybrid.index.ids)

    async def aclear(self) -> None:
        """Remove all nodes."""
        await asyncio.to_thread(self.clear)

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return the nodes of these ids, in their order, or all that pass the filters."""
        ids = self._ids(node_ids, to_filter(filters))
        return [to_node(record) for record in self.hybrid.get(ids)]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return nodes; see ``get_nodes``."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    # Search

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the best nodes in the query's mode, with their scores, best first.

        similarity_top_k: how many; in sparse mode ``sparse_top_k``, in hybrid mode
            ``hybrid_top_k`` comes first, where given.
        filters, doc_ids, node_ids: restrict what is found, before the top k of each leg.
        alpha: in hybrid mode, 0 for term weights alone to 1 for vectors alone (dense and
            ColBERT, in the retriever's own proportion); None is the retriever's own weights.

        Raises InputError for a mode that the store or its index does not have.
        """
        check_no_others(kwargs, owner="M3VectorStore")
        of_documents = {REF_DOC_ID: {"$in": query.doc_ids}} if query.doc_ids else None
        return answer(self.hybrid, query, filter=all_of([to_filter(query.filters), of_documents]))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the best nodes; see ``query``. Concurrent questions share a forward pass."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    # On disk

    def persist(self, persist_path: str, fs: AbstractFileSystem | None = None) -> None:
        """Write the store to a folder of this name; see ``HybridRetriever.save``.

        Called by ``StorageContext.persist``. Raises InputError for a file system that is not
        local: an index that is safe against a crash needs one.
        """
        if fs is not None and not isinstance(fs, LocalFileSystem):
            raise InputError(
                f"persist expects a local folder, got {type(fs).__name__}. Persist to a local "
                "folder and copy it."
            )
        self.hybrid.save(persist_path)

    @classmethod
    def from_persist_path(cls, persist_path: str | Path, encoder: M3Encoder) -> M3VectorStore:
        """Return the store that was written to a folder; see ``HybridRetriever.load``."""
        return cls(HybridRetriever.load(persist_path, encoder))

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str | Path = DEFAULT_PERSIST_DIR,
        *,
        encoder: M3Encoder,
        namespace: str = DEFAULT_VECTOR_STORE,
    ) -> M3VectorStore:
        """Return the store that ``StorageContext.persist(persist_dir)`` wrote.

        To load the docstore too, give it as ``StorageContext.from_defaults(persist_dir=…,
        vector_store=…)``: without it LlamaIndex looks for a store of its own.
        """
        name = f"{namespace}{NAMESPACE_SEP}{DEFAULT_PERSIST_FNAME}"
        return cls.from_persist_path(Path(persist_dir) / name, encoder)

    def _ids(self, node_ids: Sequence[str] | None, filter: Filter | None) -> list[str]:
        if node_ids is not None:
            check_ids(node_ids, name="node_ids")
        passes = compile_filter(filter)
        wanted = self.hybrid.index.ids if node_ids is None else node_ids
        return [record.id for record in self.hybrid.get(wanted) if passes(record.metadata)]


class _QuestionsOnly(M3Embedding):
    """Leaves nodes without a vector: the store makes its own, and reads none."""

    @classmethod
    def class_name(cls) -> str:
        """Return a name of its own, for caches of what a transformation gave."""
        return "M3QuestionsOnly"

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [[] for _ in texts]
