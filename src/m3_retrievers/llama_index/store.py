"""M3VectorStore: a HybridRetriever as a LlamaIndex vector store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Unpack

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.simple import DEFAULT_VECTOR_STORE, NAMESPACE_SEP
from llama_index.core.vector_stores.types import (
    DEFAULT_PERSIST_DIR,
    DEFAULT_PERSIST_FNAME,
    BasePydanticVectorStore,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from pydantic import InstanceOf

from m3_retrievers.checks import check_ids
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.frameworks.inputs import all_of, as_hybrid
from m3_retrievers.frameworks.opening import Opens
from m3_retrievers.frameworks.options import HybridOptions, hybrid_retriever
from m3_retrievers.habits import check_options, check_others, guided
from m3_retrievers.index.base import Index
from m3_retrievers.llama_index import names, storage
from m3_retrievers.llama_index.embeddings import M3Embedding
from m3_retrievers.llama_index.filters import Filters, to_filter
from m3_retrievers.llama_index.nodes import REF_DOC_ID, check_nodes, to_node, to_records
from m3_retrievers.llama_index.query import answer
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.retrieval.threads import in_thread


@guided(**names.OF_STORE)
class M3VectorStore(Opens, BasePydanticVectorStore):
    """An updatable store that searches by vectors, by terms, or by the whole hybrid score.

    hybrid: a HybridRetriever, or for an empty store an encoder, M3Embedding or a model's name.
    The modes of a query: ``default`` (dense), ``sparse`` (M3's term weights), ``text_search``
    (BM25, if ``"bm25"`` is among the retriever's legs), ``hybrid``, and ``mmr`` (the best
    hybrid hits that are unlike each other). The async methods run in a thread.

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

    def __init__(
        self,
        hybrid: HybridRetriever | Encoder | M3Embedding | str | Path,
        *,
        is_embedding_query: bool = False,
        **others: Any,
    ) -> None:
        check_others(set(others) - {"stores_text"}, type(self))
        given = as_hybrid(
            hybrid,
            owner="M3VectorStore",
            made_by="M3VectorStore.from_nodes",
            embeddings=M3Embedding,
        )
        super().__init__(hybrid=given, is_embedding_query=is_embedding_query)  # type: ignore[call-arg]

    @classmethod
    def from_nodes(
        cls,
        nodes: Iterable[BaseNode],
        encoder: Encoder | str | Path,
        *,
        batch_size: int = 256,
        show_progress: bool = False,
        **options: Unpack[HybridOptions],
    ) -> M3VectorStore:
        """Return a store of the nodes (documents are nodes too).

        encoder: the model, or its name. options: legs, recall, fusion, weights, bm25,
        tokenizer, as for ``M3EnsembleRetriever``.
        """
        made = cls(hybrid_retriever(encoder, options=options, method=cls.from_nodes))
        made.add(check_nodes(nodes), batch_size=batch_size, show_progress=show_progress)
        return made

    from_documents = from_nodes  # documents are nodes

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and id in self.hybrid.index

    def __len__(self) -> int:
        return len(self.hybrid)

    def __bool__(self) -> bool:
        return True  # LlamaIndex passes over a store that is false, and an empty one is one too

    @property
    def ids(self) -> list[str]:
        """The ids of all nodes, in order of insertion."""
        return list(self.hybrid.index.ids)

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
        check_others(kwargs, self.add)
        records = to_records(nodes)
        return self.hybrid.upsert(records, batch_size=batch_size, show_progress=show_progress)

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes; see ``add``."""
        return await in_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove the nodes of one document; an unknown one has none."""
        check_others(delete_kwargs, self.delete)
        if not isinstance(ref_doc_id, str):
            raise InputError(
                f"delete expects the id of one document, got {ref_doc_id!r:.60}. To remove "
                "nodes by their own ids use delete_nodes."
            )
        self.hybrid.delete(filter={REF_DOC_ID: {"$eq": ref_doc_id}})

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove the nodes of one document; see ``delete``."""
        await in_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: Filters = None,
        **delete_kwargs: Any,
    ) -> None:
        """Remove the nodes of these ids that pass the filters, passing over unknown ids.

        Raises InputError without either: nothing is emptied by an argument that was
        forgotten; that is what ``clear`` is for.
        """
        check_others(delete_kwargs, self.delete_nodes)
        if node_ids is None and filters is None:
            raise InputError(
                "delete_nodes expects node_ids or filters, got neither. To remove all, use clear."
            )
        if node_ids is not None:
            check_ids(node_ids, name="node_ids")
        self.hybrid.delete(node_ids, filter=to_filter(filters))

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: Filters = None,
        **delete_kwargs: Any,
    ) -> None:
        """Remove nodes; see ``delete_nodes``."""
        await in_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def clear(self) -> None:
        """Remove all nodes."""
        self.hybrid.delete(self.hybrid.index.ids)

    async def aclear(self) -> None:
        """Remove all nodes."""
        await in_thread(self.clear)

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: Filters = None
    ) -> list[BaseNode]:
        """Return the nodes of these ids, in their order, or all that pass the filters."""
        index, filter = self.hybrid.index, to_filter(filters)
        with index.snapshot():
            admitted = index.where(filter)
            if node_ids is not None:
                known = set(admitted)
                admitted = [id for id in check_ids(node_ids, name="node_ids") if id in known]
            return [to_node(record) for record in index.get(admitted)]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: Filters = None
    ) -> list[BaseNode]:
        """Return nodes; see ``get_nodes``."""
        return await in_thread(self.get_nodes, node_ids, filters)

    # Search

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the best nodes in the query's mode, with their scores, best first.

        similarity_top_k: how many; in sparse mode ``sparse_top_k``, in hybrid mode
            ``hybrid_top_k`` comes first, where given.
        filters, doc_ids, node_ids: restrict what is found, before the top k of each leg.
        alpha: in hybrid mode, 0 for term weights alone to 1 for vectors alone (dense and
            ColBERT, in the retriever's own proportion); None is the retriever's own weights.
        kwargs (``vector_store_kwargs`` of an index's retriever): in mmr mode ``mmr_threshold``,
            1 for nearness alone to 0 for unlikeness alone, 0.5 where none is given, and
            ``mmr_prefetch_k``, how many hybrid hits to choose from, 20 where none is given.

        Raises InputError for a mode that the store or its index does not have.
        """
        if not isinstance(query, VectorStoreQuery):
            raise InputError(
                f"query expects a VectorStoreQuery, got {query!r:.60}. Write "
                "VectorStoreQuery(query_str=…, similarity_top_k=…)."
            )
        known = ("mmr_threshold", "mmr_prefetch_k")
        check_options(kwargs, known=known, owner="M3VectorStore.query")
        of_documents = {REF_DOC_ID: {"$in": query.doc_ids}} if query.doc_ids else None
        filter = all_of([to_filter(query.filters), of_documents])
        return answer(self.hybrid, query, filter=filter, **kwargs)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the best nodes; see ``query``. Concurrent questions share a forward pass."""
        return await in_thread(self.query, query, **kwargs)

    # On disk

    def persist(self, persist_path: str, fs: AbstractFileSystem | None = None) -> None:
        """Write the store to a folder of this name; see ``HybridRetriever.save``.

        Beside the .json file that ``StorageContext.persist`` names, which says how to read it.
        """
        if fs is not None and not isinstance(fs, LocalFileSystem):
            raise InputError(
                f"persist expects a local folder, got {type(fs).__name__}. Persist to a local "
                "folder and copy it."
            )
        storage.write(self.hybrid, persist_path)

    @classmethod
    def from_persist_path(
        cls, persist_path: str | Path, encoder: Encoder | str | Path
    ) -> M3VectorStore:
        """Return the store that ``persist`` wrote; see ``HybridRetriever.load``."""
        return cls(HybridRetriever.load(storage.folder_of(persist_path), encoder))

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str | Path = DEFAULT_PERSIST_DIR,
        *,
        encoder: Encoder | str | Path,
        namespace: str = DEFAULT_VECTOR_STORE,
    ) -> M3VectorStore:
        """Return the store that ``StorageContext.persist(persist_dir)`` wrote.

        To load the docstore too, give it as ``StorageContext.from_defaults(persist_dir=…,
        vector_store=…)``: without it LlamaIndex looks for a store of its own.
        """
        name = f"{namespace}{NAMESPACE_SEP}{DEFAULT_PERSIST_FNAME}"
        return cls.from_persist_path(Path(persist_dir) / name, encoder)


class _QuestionsOnly(M3Embedding):
    """Leaves nodes without a vector: the store makes its own, and reads none."""

    @classmethod
    def class_name(cls) -> str:
        """Return a name of its own, for caches of what a transformation gave."""
        return "M3QuestionsOnly"

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [[] for _ in texts]
