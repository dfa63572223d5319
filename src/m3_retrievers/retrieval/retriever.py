"""HybridRetriever: encode → recall → complete → score → hits, from top to bottom.

A query is encoded once. Each leg recalls its best documents; over the union of the legs
every score that a leg did not compute is computed exactly; the hybrid score orders the
result (BGE-M3 paper, arXiv 2402.03216, section 3.2 and 4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from m3_retrievers import scoring
from m3_retrievers.checks import check_ids, check_k, check_texts
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.index.base import Filter, Index
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.retrieval import saving
from m3_retrievers.retrieval.hits import fused_hits, scored_hits
from m3_retrievers.retrieval.settings import (
    RetrievalSettings,
    check_parts,
    encoded_modes,
    scored_modes,
    usable_legs,
)
from m3_retrievers.retrieval.storing import records_of, store
from m3_retrievers.types.hits import Hit, Hits, Metadata, Query, Ranking, Record
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import DEFAULT_LEGS, HybridWeights, Mode
from m3_retrievers.types.plan import Fusion as Fusion
from m3_retrievers.types.plan import Recall as Recall
from m3_retrievers.types.representations import Output, Representations


class HybridRetriever:
    """Hybrid retrieval over an index, with no framework around it.

    encoder: makes the representations. index: None makes a LocalIndex with what the legs
        and weights need. legs: of ``"dense"``, ``"sparse"``, ``"bm25"``; a model without a
        sparse head gets ``"bm25"`` for ``"sparse"``, with a LexicalFallbackWarning.
    recall: depth of each leg. weights: of the hybrid score; None is the model's own.
    fusion: None orders by the hybrid score; ``ReciprocalRankFusion()`` or ``WeightedSum()``
        orders by the legs alone, without reranking.

    In the hybrid score ``weights.sparse`` weighs the lexical leg. M3's weights enter as they
    are; a BM25 score, which has no upper bound, enters as its share of the largest score the
    query could reach. With both lexical legs, M3's is scored and BM25 only recalls.
    """

    def __init__(
        self,
        encoder: M3Encoder,
        index: Index | None = None,
        *,
        legs: Sequence[Mode] = DEFAULT_LEGS,
        recall: Recall | None = None,
        fusion: Fusion | None = None,
        weights: HybridWeights | None = None,
    ) -> None:
        check_parts(encoder, recall=recall, fusion=fusion, weights=weights)
        self.encoder = encoder
        self.legs = usable_legs(legs, encoder)
        self.recall = recall or Recall()
        self.fusion = fusion
        self.weights = weights or encoder.default_weights
        self._modes = scored_modes(self.legs, self.weights, encoder)
        self.index: Index = index if index is not None else self._new_index()
        if not hasattr(self.index, "modes"):
            raise InputError(
                f"index expects an Index such as LocalIndex, got {self.index!r:.80}. Leave it out "
                "for a new one, and add texts with add()."
            )
        absent = [leg for leg in self.legs if leg not in self.index.modes]
        if absent:
            raise InputError(
                f"legs {self.legs} expect an index that scores {absent}, got one with "
                f"{sorted(self.index.modes)}. Build it with these modes, or name other legs."
            )

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"HybridRetriever({self.encoder.name!r}, legs={self.legs}, documents={len(self)})"

    def _repr_html_(self) -> str:
        told = {
            "model": self.encoder.name,
            "documents": len(self),
            "legs": ", ".join(self.legs),
            "weights": self.weights,
            "fusion": self.fusion or "none: the hybrid score orders",
        }
        from m3_retrievers.display import markup

        return markup.facts("HybridRetriever", told)

    # Documents in and out

    def add(
        self,
        texts: Iterable[str | Record],
        *,
        ids: Iterable[str] | None = None,
        metadata: Iterable[Metadata] | None = None,
        show_progress: bool = False,
        chunk_size: int = 256,
    ) -> list[str]:
        """Encode documents, add them, and return their ids (made up where none are given).

        texts: strings, or records, which bring id and metadata with them. They may come from
        a generator; a list is checked whole before anything is encoded. The work goes in
        chunks of ``chunk_size`` documents: an interruption or an error leaves all finished
        chunks in the index. Raises DuplicateIdError for an id given twice or already known
        (``upsert`` replaces), InputError for what is no text.
        """
        return store(
            self.index,
            self.encoder,
            _records(texts, ids, metadata),
            replace=False,
            show_progress=show_progress,
            chunk_size=chunk_size,
        )

    def upsert(
        self,
        texts: Iterable[str | Record],
        *,
        ids: Iterable[str] | None = None,
        metadata: Iterable[Metadata] | None = None,
        show_progress: bool = False,
        chunk_size: int = 256,
    ) -> list[str]:
        """Add documents as ``add`` does, replacing those whose id is known."""
        return store(
            self.index,
            self.encoder,
            _records(texts, ids, metadata),
            replace=True,
            show_progress=show_progress,
            chunk_size=chunk_size,
        )

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Remove documents; returns the ids that were there."""
        return self.index.delete(ids)

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
        if outputs is None or self.index.modes.issuperset(outputs):
            return self.index.vectors(ids, outputs=outputs)
        self._check_known(ids)
        texts = [record.text for record in self.index.get(ids)]
        return self.encoder.encode_documents(texts, outputs=outputs)

    # Search, and its steps

    def search(self, query: str | Query, *, k: int = 10, filter: Filter | None = None) -> Hits:
        """Return the k best hits, best first, among the documents the filter admits.

        query: a text, or what ``prepare`` made of one.
        """
        check_k(k)
        return self._search(self._prepared(query), k, filter)

    async def asearch(
        self, query: str | Query, *, k: int = 10, filter: Filter | None = None
    ) -> Hits:
        """Search in a thread; searches awaited together share forward passes."""
        return await asyncio.to_thread(self.search, query, k=k, filter=filter)

    def search_many(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        filter: Filter | None = None,
        show_progress: bool = False,
    ) -> list[Hits]:
        """Return the hits of each query; the queries are encoded in batches."""
        check_k(k)
        outputs = self._query_outputs()
        texts = check_texts(queries)
        encoded = self.encoder.encode_queries(texts, outputs=outputs, show_progress=show_progress)
        rows = tqdm(range(len(texts)), disable=not show_progress, desc="search", unit="query")
        return [self._search(Query(texts[row], encoded[row]), k, filter) for row in rows]

    def prepare(self, query: str) -> Query:
        """Return the query with the representations this retriever needs, from one pass."""
        return Query(query, self.encoder.encode_query(query, outputs=self._query_outputs()))

    def recall_leg(self, query: Query | str, leg: Mode, *, filter: Filter | None = None) -> Ranking:
        """Return what one leg recalls, to the depth that ``recall`` sets."""
        if leg not in self.legs:
            raise InputError(f"leg expects one of {self.legs}, got {leg!r}.")
        depth = self.recall.dense if leg == "dense" else self.recall.lexical
        return self.index.recall(self._prepared(query), leg, k=depth, filter=filter)

    def rank(self, query: Query, rankings: Mapping[str, Ranking], *, k: int = 10) -> list[Hit]:
        """Return the k best hits of what the legs recalled, by fusion or by the hybrid score."""
        check_k(k)
        if self.fusion is not None:
            fused = self.fusion(rankings)
            return fused_hits(self.index.get(fused.ids[:k]), fused, rankings)
        # in order of insertion, which breaks ties; what another thread deleted meanwhile is out
        candidates = self.index.in_order([id for found in rankings.values() for id in found.ids])
        return self._scored(query, candidates, k) if candidates else []

    def score(self, query: str | Query, ids: Sequence[str]) -> Hits:
        """Return the given documents as hits, best hybrid score first, recalled or not.

        Their ranks count among themselves. Raises InputError for an unknown id.
        """
        check_ids(ids, name="score")
        self._check_known(ids)
        candidates = self.index.in_order(ids)
        return Hits(self._scored(self._prepared(query), candidates, len(ids)) if ids else ())

    # On disk

    def save(self, folder: str | Path) -> None:
        """Write index and settings to a folder; see ``index.storage`` for how it is kept safe."""
        settings = RetrievalSettings(self.legs, self.recall, self.fusion, self.weights)
        saving.save(folder, self.index, self.encoder, settings)

    @classmethod
    def load(cls, folder: str | Path, encoder: M3Encoder) -> HybridRetriever:
        """Return the retriever saved in a folder, with its legs, recall, weights and fusion.

        Raises IndexModelError if another model built it, IndexCorruptError for a file that
        is torn or changed, SavedIndexError for a folder that holds no index.
        """
        index, settings = saving.load(folder, encoder)
        return cls(
            encoder,
            index,
            legs=settings.legs,
            recall=settings.recall,
            fusion=settings.fusion,
            weights=settings.weights,
        )

    # Inside

    def _new_index(self) -> LocalIndex:
        weighting = BM25() if "bm25" in self.legs else None
        return LocalIndex(modes=encoded_modes(self._modes), weighting=weighting)

    def _query_outputs(self) -> tuple[Output, ...]:
        return encoded_modes(self._modes) or ("dense",)

    def _check_known(self, ids: Sequence[str]) -> None:
        unknown = next((id for id in ids if id not in self.index), None)
        if unknown is not None:
            raise InputError(f"expected ids of the index, got {unknown!r}.")

    def _prepared(self, query: str | Query) -> Query:
        return query if isinstance(query, Query) else self.prepare(query)

    def _search(self, query: Query, k: int, filter: Filter | None) -> Hits:
        rankings: dict[str, Ranking] = {
            leg: self.recall_leg(query, leg, filter=filter) for leg in self.legs
        }
        return Hits(self.rank(query, rankings, k=k))

    def _scored(self, query: Query, candidates: Sequence[str], k: int) -> list[Hit]:
        """Return the k best candidates as hits, ordered by the hybrid score."""
        scores: dict[str, Floats] = {m: self._score(query, m, candidates) for m in self._modes}
        weighed = {m: s for m, s in scores.items() if m != "bm25" or "sparse" not in scores}
        scales: dict[str, float] = {
            mode: self.index.scale(query, mode) for mode in self._modes if mode in self.index.modes
        }
        shares = scoring.contributions(weighed, self.weights, scales)
        hybrid = scoring.hybrid(weighed, self.weights, scales=scales)
        best = np.argsort(-hybrid, kind="stable")[:k]
        records = self.index.get([candidates[row] for row in best])
        return scored_hits(records, best, {**scores, "hybrid": hybrid}, shares)

    def _score(self, query: Query, mode: Mode, ids: Sequence[str]) -> Floats:
        if mode in self.index.modes:
            return self.index.score(query, mode, ids)
        documents = self.vectors(ids, outputs=(mode,))  # type: ignore[arg-type]
        scores: Floats = scoring.by_mode(mode, query.representations, documents)[0]
        return scores


def _records(
    texts: Iterable[str | Record],
    ids: Iterable[str] | None,
    metadata: Iterable[Metadata] | None,
) -> Iterable[Record]:
    """Return checked records: of a list a list, of a generator a generator."""
    records = records_of(texts, ids, metadata)
    return list(records) if isinstance(texts, Sequence) else records
