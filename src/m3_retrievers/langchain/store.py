"""M3VectorStore: a HybridRetriever as a LangChain vector store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from m3_retrievers.checks import check_k
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.choose import as_encoder
from m3_retrievers.errors import InputError
from m3_retrievers.frameworks.diversity import FETCHED, TRADE_OFF, mmr
from m3_retrievers.frameworks.inputs import as_hybrid
from m3_retrievers.frameworks.opening import Opens
from m3_retrievers.frameworks.options import HybridOptions, hybrid_retriever
from m3_retrievers.frameworks.scores import ScoreStyle, check_style
from m3_retrievers.frameworks.vectors import as_vector
from m3_retrievers.habits import check_others, guided
from m3_retrievers.index.base import Filter
from m3_retrievers.langchain import names
from m3_retrievers.langchain.documents import (
    from_hit,
    make_documents,
    restyled,
    to_document,
    to_records,
)
from m3_retrievers.langchain.embeddings import M3Embeddings
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.representations import Representations


@guided(**names.OF_STORE)
class M3VectorStore(Opens, VectorStore):
    """An updatable store whose similarity search is the whole hybrid retrieval.

    hybrid: a HybridRetriever, or for an empty store an encoder, M3Embeddings or a model's name.
    Searches take ``k`` and a metadata ``filter``. The async methods run in a thread.

    Documents come back as they were stored. For ``metadata["scores"]`` ask for scores, or
    retrieve with ``M3EnsembleRetriever(hybrid=store.hybrid)``. scores: how
    ``similarity_search_with_score`` shows them, as for ``M3EnsembleRetriever``.
    """

    def __init__(
        self,
        hybrid: HybridRetriever | Encoder | M3Embeddings | str | Path,
        *,
        scores: ScoreStyle = "nested",
    ) -> None:
        self.hybrid = as_hybrid(
            hybrid,
            owner="M3VectorStore",
            made_by="M3VectorStore.from_documents",
            embeddings=M3Embeddings,
        )
        self.scores = check_style(scores)

    def __len__(self) -> int:
        return len(self.hybrid)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and id in self.hybrid.index

    def __bool__(self) -> bool:
        return True  # an empty store is one too

    @property
    def ids(self) -> list[str]:
        """The ids of all documents, in order of insertion."""
        return list(self.hybrid.index.ids)

    def __repr__(self) -> str:
        return f"M3VectorStore({self.hybrid!r})"

    @property
    def embeddings(self) -> M3Embeddings:
        """The dense embeddings of the store's model."""
        return M3Embeddings(self.hybrid.encoder)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings | Encoder | str | Path | None = None,
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> M3VectorStore:
        """Return a store of the texts; see ``from_documents``."""
        documents = make_documents(texts, metadatas, ids)
        return cls.from_documents(documents, embedding, **kwargs)

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        embedding: Embeddings | Encoder | str | Path | None = None,
        *,
        encoder: Encoder | str | Path | None = None,
        ids: Sequence[str | None] | None = None,
        scores: ScoreStyle = "nested",
        batch_size: int = 256,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> M3VectorStore:
        """Return a store of the documents.

        embedding, or encoder: M3Embeddings, the encoder itself, or a model's name. kwargs:
        legs, recall, fusion, weights, bm25, tokenizer, as for ``M3EnsembleRetriever``. Raises
        InputError for other embeddings and for options that are not known.
        """
        check_others(kwargs, cls.from_documents, also=HybridOptions.__annotations__)
        made_with = _encoder(encoder if embedding is None else embedding)
        hybrid = hybrid_retriever(made_with, options=kwargs, method=cls.from_documents)
        made = cls(hybrid, scores=scores)
        made.add_documents(documents, ids=ids, batch_size=batch_size, show_progress=show_progress)
        return made

    def add_documents(
        self,
        documents: Iterable[Document],
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int = 256,
        show_progress: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Store documents, replacing those whose id is known; returns their ids.

        ids: None takes the documents' own; a document without any gets a new one. Each batch
        is stored before the next is encoded. Raises DuplicateIdError for an id given twice.
        """
        check_others(kwargs, self.add_documents)
        records = to_records(documents, ids)
        return self.hybrid.upsert(records, batch_size=batch_size, show_progress=show_progress)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store texts; see ``add_documents``."""
        return self.add_documents(make_documents(texts, metadatas, ids), **kwargs)

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> bool:
        """Remove the documents of these ids that pass the filter; returns True.

        Passes over unknown ids. Raises InputError without ids or a filter: nothing is emptied
        by an argument that was forgotten.
        """
        check_others(kwargs, self.delete)
        self.hybrid.delete(ids, filter=filter)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return documents in the order asked for, passing over unknown ids."""
        return [to_document(record) for record in self.hybrid.get(ids)]

    def similarity_search(
        self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """Return the k best documents by hybrid score, as they were stored."""
        check_others(kwargs, self.similarity_search)
        return [to_document(hit) for hit in self.hybrid.search(query, k=k, filter=filter)]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the k best documents, found in a thread; see ``similarity_search``."""
        return await in_thread(self.similarity_search, query, k, **kwargs)

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return the k best documents, each mode's score in the metadata, and the hybrid score."""
        check_others(kwargs, self.similarity_search_with_score)
        hits = self.hybrid.search(query, k=k, filter=filter)
        return [(restyled(from_hit(hit), self.scores), hit.score) for hit in hits]

    def similarity_search_by_vector(
        self, embedding: Sequence[float], k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """Return the k best documents by inner product with a dense vector (h,)."""
        check_others(kwargs, self.similarity_search_by_vector)
        return [to_document(record) for record in self._nearest(embedding, k, filter)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = FETCHED,
        lambda_mult: float = TRADE_OFF,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return k of the ``fetch_k`` best hybrid hits, near the query and unlike each other.

        Nearness is the dense one. lambda_mult: 1 for relevance alone, 0 for diversity alone.
        """
        check_others(kwargs, self.max_marginal_relevance_search)
        prepared = self.hybrid.prepare(query)
        hits = self.hybrid.search(prepared, k=fetch_k, filter=filter)
        records = [Record(hit.id, hit.text, hit.metadata) for hit in hits]
        dense = prepared.representations.dense  # None where dense counts for nothing
        vector = self.embeddings.embed_query(query) if dense is None else dense[0]
        return self._diverse(vector, records, k, lambda_mult)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: Sequence[float],
        k: int = 4,
        fetch_k: int = FETCHED,
        lambda_mult: float = TRADE_OFF,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return k of the ``fetch_k`` nearest to a dense vector (h,), unlike each other."""
        check_others(kwargs, self.max_marginal_relevance_search_by_vector)
        return self._diverse(embedding, self._nearest(embedding, fetch_k, filter), k, lambda_mult)

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """Return a retriever over the store, with ``search_type`` and ``search_kwargs``."""
        check_others(kwargs, self.as_retriever, also=VectorStoreRetriever.model_fields)
        return super().as_retriever(**kwargs)

    def save(self, folder: str | Path) -> None:
        """Write the store to a folder; see ``HybridRetriever.save``."""
        self.hybrid.save(folder)

    @classmethod
    def load(cls, folder: str | Path, encoder: Encoder | Embeddings | str | Path) -> M3VectorStore:
        """Return the store saved in a folder; see ``HybridRetriever.load``.

        encoder: the model, M3Embeddings of it, or its name.
        """
        return cls(HybridRetriever.load(folder, _encoder(encoder)))

    def _nearest(self, embedding: Sequence[float], k: int, filter: Filter | None) -> list[Record]:
        query = Query("", Representations(dense=as_vector(embedding)))
        return self.hybrid.get(self.hybrid.index.recall(query, "dense", k=k, filter=filter).ids)

    def _diverse(
        self,
        embedding: Sequence[float] | Floats,
        records: list[Record],
        k: int,
        lambda_mult: float,
    ) -> list[Document]:
        check_k(k)
        stored = self.hybrid.vectors([record.id for record in records], outputs=("dense",))
        query, vectors = as_vector(embedding)[0], stored.require("dense")
        chosen = mmr(query, vectors, k=k, trade_off=lambda_mult)
        return [to_document(records[at]) for at in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Divide by the sum of the weights that count, as FlagEmbedding does; cut to 0..1."""
        if self.hybrid.fusion is not None:
            raise InputError(
                "A relevance score expects a hybrid score, got one that orders by fusion, which "
                "only says who comes first. Use a HybridRetriever without fusion."
            )
        total = self.hybrid.plan.total_weight
        return lambda score: min(1.0, max(0.0, score / total))


def _encoder(embedding: Embeddings | Encoder | str | Path | None) -> Encoder:
    if isinstance(embedding, M3Embeddings):
        return embedding.encoder
    if embedding is None or isinstance(embedding, Embeddings):
        raise InputError(
            f"M3VectorStore expects an encoder, a model's name or M3Embeddings, got "
            f"{embedding!r:.80}. It needs term weights and token vectors too: encoder='m3-mini'."
        )
    return as_encoder(embedding)
