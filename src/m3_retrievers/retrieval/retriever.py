"""HybridRetriever: encode → recall → complete → score → hits.

A query is encoded once, and searched for by the index's one hybrid search (index/search.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from m3_retrievers.checks import check_ids, check_k, check_texts
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.choose import as_encoder
from m3_retrievers.errors import InputError
from m3_retrievers.habits import guided
from m3_retrievers.index.base import Filter, Index
from m3_retrievers.index.search import score, search_many
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.names import OF_RETRIEVERS
from m3_retrievers.retrieval import saving
from m3_retrievers.retrieval.opening import bind_index, open_index
from m3_retrievers.retrieval.planning import check_index, index_for, plan_for, plan_options
from m3_retrievers.retrieval.shown import Shown
from m3_retrievers.retrieval.storing import as_records, store, stored_vectors
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.types.hits import Hits, Metadata, Query, Ranking, Record, SearchResult
from m3_retrievers.types.plan import (
    DEFAULT_LEGS,
    Fusion,
    HybridWeights,
    Mode,
    Plan,
    Recall,
    encoded_modes,
)
from m3_retrievers.types.representations import Output, Representations


@guided(**OF_RETRIEVERS)
class HybridRetriever(Shown):
    """Hybrid retrieval over an index, with no framework around it.

    encoder: makes the representations; an encoder, or the name of a model. index: None makes
        a LocalIndex with what the legs and weights need. legs: of ``"dense"``, ``"sparse"``,
        ``"bm25"``; a model without a sparse head gets ``"bm25"`` for ``"sparse"``, with a
        LexicalFallbackWarning.
    recall: depth of each leg. weights: of the hybrid score; None is the model's own.
    fusion: None orders by the hybrid score; ``ReciprocalRankFusion()`` or ``WeightedSum()``
        orders by the legs alone, without reranking.
    bm25: the BM25 of the leg ``"bm25"`` of a new index; None is ``BM25()``.

    In the hybrid score ``weights.sparse`` weighs the lexical leg. M3's weights enter as they
    are; a BM25 score, which has no upper bound, enters as its share of the largest score the
    query could reach. With both lexical legs, M3's is scored and BM25 only recalls.
    """

    def __init__(
        self,
        encoder: Encoder | str | Path,
        index: Index | None = None,
        *,
        legs: Sequence[Mode] = DEFAULT_LEGS,
        recall: Recall | None = None,
        fusion: Fusion | None = None,
        weights: HybridWeights | None = None,
        bm25: BM25 | None = None,
    ) -> None:
        self.encoder = as_encoder(encoder)
        self._plan = plan_for(
            self.encoder, legs=legs, recall=recall, fusion=fusion, weights=weights
        )
        self.index = index_for(self._plan, bm25) if index is None else index
        check_index(self.index, self._plan, bm25=None if index is None else bm25)
        bind_index(self.index, self.encoder)

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and id in self.index

    def __bool__(self) -> bool:
        return True  # an empty retriever is one too

    # Documents in and out

    def add(
        self,
        texts: Iterable[str | Record],
        *,
        ids: Iterable[str] | None = None,
        metadata: Iterable[Metadata] | None = None,
        show_progress: bool = False,
        batch_size: int = 256,
    ) -> list[str]:
        """Encode documents, add them, and return their ids (made up where none are given).

        texts: strings, or records, which bring id and metadata with them. They may come from
        a generator; a list is checked whole before anything is encoded. The work goes in
        batches of ``batch_size`` documents: an interruption or an error leaves all finished
        batches in the index. Raises DuplicateIdError for an id given twice or already known
        (``upsert`` replaces), InputError for what is no text.
        """
        return store(
            self.index,
            self.encoder,
            as_records(texts, ids, metadata),
            replace=False,
            show_progress=show_progress,
            batch_size=batch_size,
        )

    def upsert(
        self,
        texts: Iterable[str | Record],
        *,
        ids: Iterable[str] | None = None,
        metadata: Iterable[Metadata] | None = None,
        show_progress: bool = False,
        batch_size: int = 256,
    ) -> list[str]:
        """Add documents as ``add`` does, replacing those whose id is known."""
        return store(
            self.index,
            self.encoder,
            as_records(texts, ids, metadata),
            replace=True,
            show_progress=show_progress,
            batch_size=batch_size,
        )

    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None
    ) -> list[str]:
        """Remove the documents of these ids that the filter admits; returns the ids removed.

        Unknown ids are passed over. Raises InputError without ids and without a filter.
        """
        return self.index.delete(ids, filter=filter)

    def get(self, ids: Sequence[str]) -> list[Record]:
        """Return documents in the order asked for, passing over unknown ids."""
        return self.index.get(ids)

    def vectors(
        self, ids: Sequence[str], *, outputs: Sequence[Output] | None = None
    ) -> Representations:
        """Return the representations of stored documents, a row an id, in that order.

        outputs: those wanted, None for all that the index keeps. If one of them is not kept,
        the texts are encoded again. Raises InputError for an unknown id.
        """
        return stored_vectors(self.index, self.encoder, ids, outputs)

    # Search, and its steps

    def search(self, query: str | Query, *, k: int = 10, filter: Filter | None = None) -> Hits:
        """Return the k best hits, best first, among the documents the filter admits.

        query: a text, or what ``prepare`` made of one.
        """
        return self.search_legs(query, k=k, filter=filter).hits

    async def asearch(
        self, query: str | Query, *, k: int = 10, filter: Filter | None = None
    ) -> Hits:
        """Search in a thread; searches awaited together share forward passes."""
        return await in_thread(self.search, query, k=k, filter=filter)

    def search_legs(
        self,
        query: str | Query,
        *,
        k: int = 10,
        filter: Filter | None = None,
        ids: Collection[str] | None = None,
        plan: Plan | None = None,
    ) -> SearchResult:
        """Return what ``search`` does, and beside the hits what each leg recalled.

        ids: what may be found at all, None for everything. plan: another than the retriever's
        own, for this search.
        """
        check_k(k)
        return self.index.search(
            self._prepared(query),
            plan or self._plan,
            k=k,
            filter=filter,
            ids=ids,
            encode=self._encode,
        )

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        filter: Filter | None = None,
        show_progress: bool = False,
    ) -> list[Hits]:
        """Return the hits of each query, as ``search`` finds them.

        The queries are encoded in batches; an index in this process reads its dense vectors
        once for many of them.
        """
        check_k(k)
        texts = check_texts(queries)
        outputs = self._query_outputs()
        encoded = self.encoder.encode_queries(texts, outputs=outputs, show_progress=show_progress)
        asked = [Query(text, encoded[row]) for row, text in enumerate(texts)]
        found = search_many(self.index, asked, self._plan, k=k, filter=filter, encode=self._encode)
        progress = tqdm(
            found, total=len(asked), disable=not show_progress, desc="search", unit="query"
        )
        return [result.hits for result in progress]

    def prepare(self, query: str) -> Query:
        """Return the query with the representations this retriever needs, from one pass."""
        return Query(query, self.encoder.encode_query(query, outputs=self._query_outputs()))

    def recall_leg(
        self,
        query: str | Query,
        leg: Mode,
        *,
        filter: Filter | None = None,
        ids: Collection[str] | None = None,
    ) -> Ranking:
        """Return what one leg recalls, to the depth that ``recall`` sets."""
        if leg not in self.legs:
            raise InputError(f"leg expects one of {self.legs}, got {leg!r:.80}.")
        k = self._plan.recall.depth(leg)
        return self.index.recall(self._prepared(query), leg, k=k, filter=filter, ids=ids)

    def score(self, query: str | Query, ids: Sequence[str]) -> Hits:
        """Return the given documents as hits, best hybrid score first, recalled or not.

        Their ranks count among themselves. Raises InputError for an unknown id.
        """
        wanted = check_ids(ids, name="score")
        return score(self.index, self._prepared(query), self._plan, wanted, encode=self._encode)

    # On disk

    def save(self, folder: str | Path) -> None:
        """Write index and plan to a folder; see ``index.snapshot``."""
        saving.save(folder, self.index, self.encoder, self._plan)

    @classmethod
    def load(cls, folder: str | Path, encoder: Encoder | str | Path) -> HybridRetriever:
        """Return the retriever saved in a folder, with its legs, recall, weights and fusion.

        Raises IndexModelError if another model built it, IndexCorruptError for a file that
        is torn or changed, SavedIndexError for a folder that holds no index.
        """
        encoder = as_encoder(encoder)
        index, plan = saving.load(folder, encoder)
        return cls(encoder, index, **plan_options(plan))

    @classmethod
    def open(
        cls,
        path: str | Path | Index,
        encoder: Encoder | str | Path,
        *,
        legs: Sequence[Mode] | None = None,
        recall: Recall | None = None,
        fusion: Fusion | None = None,
        weights: HybridWeights | None = None,
        bm25: BM25 | None = None,
    ) -> HybridRetriever:
        """Return a retriever over a durable index; every change is on the disk at its return.

        path: of the file, made if missing, or a persistent index. Options left out are those
        kept beside it. Raises IndexModelError for another model, and what DurableIndex raises.
        """
        encoder = as_encoder(encoder)
        index, plan = open_index(
            path, encoder, legs=legs, recall=recall, fusion=fusion, weights=weights, bm25=bm25
        )
        return cls(encoder, index, **plan_options(plan))

    # Inside

    def _query_outputs(self) -> tuple[Output, ...]:
        return encoded_modes(self._plan.modes) or ("dense",)

    def _prepared(self, query: str | Query) -> Query:
        return query if isinstance(query, Query) else self.prepare(query)

    def _encode(self, texts: Sequence[str], outputs: Sequence[Output]) -> Representations:
        return self.encoder.encode_documents(texts, outputs=outputs)
