"""HybridRetriever: encode → recall → complete → score → hits, from top to bottom.

A query is encoded once. Each leg recalls its best documents; over the union of the legs
every score that a leg did not compute is computed exactly; the hybrid score orders the
result (BGE-M3 paper, arXiv 2402.03216, section 3.2 and 4).
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from m3_retrievers import markup, scoring
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.encoder.pieces import check_texts
from m3_retrievers.errors import DuplicateIdError, InputError, LexicalFallbackWarning
from m3_retrievers.fusion import fusion_from_state
from m3_retrievers.index.base import Filter, Index, SavableIndex
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.packed import Floats
from m3_retrievers.records import check_k, records_of
from m3_retrievers.representations import (
    Hit,
    Hits,
    HybridWeights,
    Metadata,
    Mode,
    Output,
    Query,
    Ranking,
    Record,
    Representations,
)

Fusion = Callable[[Mapping[str, Ranking]], Ranking]

LEGS: tuple[Mode, ...] = ("dense", "sparse", "bm25")


@dataclass(frozen=True, slots=True)
class Recall:
    """How many documents each leg recalls; None ranks every document.

    lexical counts for each lexical leg (sparse, bm25). The paper recalls 1000 a leg.
    """

    dense: int | None = 100
    lexical: int | None = 100

    def __post_init__(self) -> None:
        for name, depth in (("dense", self.dense), ("lexical", self.lexical)):
            if depth is not None:
                check_k(depth, name=f"recall {name}")

    @classmethod
    def everything(cls) -> Recall:
        """Return a recall that scores the whole collection, for an exact hybrid ranking."""
        return cls(dense=None, lexical=None)


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
        legs: Sequence[Mode] = ("dense", "sparse"),
        recall: Recall | None = None,
        fusion: Fusion | None = None,
        weights: HybridWeights | None = None,
    ) -> None:
        self.encoder = encoder
        self.legs = _legs(legs, encoder)
        self.recall = recall or Recall()
        self.fusion = fusion
        self.weights = weights or encoder.default_weights
        self._modes = self._scored_modes()
        self.index: Index = index if index is not None else self._new_index()
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
        return markup.facts("HybridRetriever", told)

    # Documents in and out

    def add(
        self,
        texts: Iterable[str],
        *,
        ids: Iterable[str] | None = None,
        metadata: Iterable[Metadata] | None = None,
        show_progress: bool = False,
        chunk_size: int = 256,
    ) -> list[str]:
        """Encode documents, add them, and return their ids (made up where none are given).

        texts may be a generator; a list is checked whole before anything is encoded. The
        work goes in chunks of ``chunk_size`` documents: an interruption or an error leaves
        all finished chunks in the index. Raises DuplicateIdError for an id given twice or
        already known (``upsert`` replaces), InputError for what is no text.
        """
        return self._store(self.index.add, texts, ids, metadata, show_progress, chunk_size)

    def upsert(
        self,
        texts: Iterable[str],
        *,
        ids: Iterable[str] | None = None,
        metadata: Iterable[Metadata] | None = None,
        show_progress: bool = False,
        chunk_size: int = 256,
    ) -> list[str]:
        """Add documents as ``add`` does, replacing those whose id is known."""
        return self._store(self.index.upsert, texts, ids, metadata, show_progress, chunk_size)

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
        unknown = [id for id in ids if id not in self.index]
        if unknown:
            raise InputError(f"expected ids of the index, got {unknown[0]!r}.")
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
            return self._fused(self.fusion, rankings, k)
        # in order of insertion, which breaks ties; what another thread deleted meanwhile is out
        candidates = self.index.in_order([id for found in rankings.values() for id in found.ids])
        if not candidates:
            return []
        scores: dict[str, Floats] = {m: self._score(query, m, candidates) for m in self._modes}
        weighed = {m: s for m, s in scores.items() if m != "bm25" or "sparse" not in scores}
        scales: dict[str, float] = {
            mode: self.index.scale(query, mode) for mode in self._modes if mode in self.index.modes
        }
        shares = scoring.contributions(weighed, self.weights, scales)
        hybrid = scoring.hybrid(weighed, self.weights, scales=scales)
        best = np.argsort(-hybrid, kind="stable")[:k]
        return self._hits(candidates, best, hybrid, {**scores, "hybrid": hybrid}, shares)

    # On disk

    def save(self, folder: str | Path) -> None:
        """Write index and settings to a folder; see ``index.storage`` for how it is kept safe."""
        index = self.index
        if not isinstance(index, SavableIndex):
            raise InputError(
                f"save expects an index that lives in this process, got {type(index).__name__}, "
                "which keeps its documents itself. Nothing needs saving."
            )
        index.save(folder, model=self._model(), extra=self._state())

    @classmethod
    def load(cls, folder: str | Path, encoder: M3Encoder) -> HybridRetriever:
        """Return the retriever saved in a folder, with its legs, recall, weights and fusion.

        Raises IndexModelError if another model built it, IndexCorruptError for a file that
        is torn or changed, SavedIndexError for a folder that holds no index.
        """

        def weighting(state: Mapping[str, Any]) -> BM25:
            # a subword BM25 counts the model's own tokens; others do without the model
            subword = encoder.tokenizer if state["tokenizer"]["kind"] == "subword" else None
            return BM25.from_state(state, subword=subword)

        model = {"name": encoder.name, "fingerprint": encoder.fingerprint}
        index = LocalIndex.load(folder, model=model, weighting=weighting)
        state = index.extra
        return cls(
            encoder,
            index,
            legs=state.get("legs", tuple(leg for leg in LEGS if leg in index.modes)),
            recall=Recall(**state.get("recall", {})),
            fusion=fusion_from_state(state["fusion"]) if state.get("fusion") else None,
            weights=HybridWeights(**state["weights"]) if "weights" in state else None,
        )

    def _model(self) -> dict[str, str]:
        return {"name": self.encoder.name, "fingerprint": self.encoder.fingerprint}

    def _state(self) -> dict[str, Any]:
        state = getattr(self.fusion, "state", None)
        if self.fusion is not None and state is None:
            raise InputError(
                f"save expects a fusion that can be written down, got {self.fusion!r}. Use "
                "ReciprocalRankFusion or WeightedSum, or set it again after loading."
            )
        return {
            "legs": list(self.legs),
            "recall": asdict(self.recall),
            "weights": asdict(self.weights),
            "fusion": state() if state else None,
        }

    # Inside

    def _scored_modes(self) -> tuple[Mode, ...]:
        """Return the modes of the hybrid score: the legs, and what the weights ask of the model."""
        dense: tuple[Mode, ...] = ("dense",)
        colbert: tuple[Mode, ...] = ("colbert",)
        wants_dense = "dense" in self.legs or self.weights.dense > 0
        wants_colbert = self.weights.colbert > 0 and "colbert" in self.encoder.outputs
        lexical = tuple(leg for leg in self.legs if leg != "dense")
        return (*(dense if wants_dense else ()), *lexical, *(colbert if wants_colbert else ()))

    def _new_index(self) -> LocalIndex:
        stored = tuple(mode for mode in self._modes if mode != "bm25")
        return LocalIndex(modes=stored, weighting=BM25() if "bm25" in self.legs else None)

    def _query_outputs(self) -> tuple[Output, ...]:
        return tuple(mode for mode in self._modes if mode != "bm25") or ("dense",)

    def _prepared(self, query: str | Query) -> Query:
        return query if isinstance(query, Query) else self.prepare(query)

    def _search(self, query: Query, k: int, filter: Filter | None) -> Hits:
        rankings: dict[str, Ranking] = {
            leg: self.recall_leg(query, leg, filter=filter) for leg in self.legs
        }
        return Hits(self.rank(query, rankings, k=k))

    def _score(self, query: Query, mode: Mode, ids: Sequence[str]) -> Floats:
        if mode in self.index.modes:
            return self.index.score(query, mode, ids)
        documents = self.vectors(ids, outputs=(mode,))  # type: ignore[arg-type]
        scores: Floats = scoring.by_mode(mode, query.representations, documents)[0]
        return scores

    def _fused(self, fusion: Fusion, rankings: Mapping[str, Ranking], k: int) -> list[Hit]:
        fused = fusion(rankings)
        place = {leg: {id: at for at, id in enumerate(r.ids)} for leg, r in rankings.items()}
        hits = []
        for at, record in enumerate(self.index.get(fused.ids[:k])):
            legs = {leg: place[leg][record.id] for leg in rankings if record.id in place[leg]}
            scores = {leg: float(rankings[leg].scores[row]) for leg, row in legs.items()}
            score = float(fused.scores[at])
            hits.append(
                Hit(
                    id=record.id,
                    text=record.text,
                    score=score,
                    metadata=record.metadata,
                    scores={**scores, "fusion": score},
                    ranks={**{leg: row + 1 for leg, row in legs.items()}, "fusion": at + 1},
                )
            )
        return hits

    def _hits(
        self,
        candidates: Sequence[str],
        best: np.ndarray[Any, np.dtype[np.intp]],
        order: Floats,
        scores: Mapping[str, Floats],
        shares: Mapping[str, Floats],
    ) -> list[Hit]:
        ranks = {mode: _ranks(values) for mode, values in scores.items()}
        records = self.index.get([candidates[at] for at in best])
        return [
            Hit(
                id=record.id,
                text=record.text,
                score=float(order[at]),
                metadata=record.metadata,
                scores={mode: float(values[at]) for mode, values in scores.items()},
                ranks={mode: int(places[at]) for mode, places in ranks.items()},
                contributions={mode: float(values[at]) for mode, values in shares.items()},
            )
            for at, record in zip(best, records, strict=True)
        ]

    def _store(
        self,
        put: Callable[[Sequence[Record], Representations], None],
        texts: Iterable[str],
        ids: Iterable[str] | None,
        metadata: Iterable[Metadata] | None,
        show_progress: bool,
        chunk_size: int,
    ) -> list[str]:
        check_k(chunk_size, name="chunk_size")
        replace = put == self.index.upsert
        records: Iterable[Record] = records_of(texts, ids, metadata)
        if isinstance(texts, Sequence):
            records = list(records)
            self._check_ids([record.id for record in records], replace=replace)
        outputs: tuple[Output, ...] = tuple(m for m in self.index.modes if m != "bm25")
        total = len(records) if isinstance(records, list) else None
        stored: list[str] = []
        source = iter(records)
        with tqdm(total=total, disable=not show_progress, desc="index", unit="doc") as bar:
            while chunk := list(islice(source, chunk_size)):
                self._check_ids([record.id for record in chunk], replace=replace)
                passages = [record.text for record in chunk]
                put(
                    chunk,
                    self.encoder.encode_documents(passages, outputs=outputs)
                    if outputs
                    else Representations(),
                )
                stored += [record.id for record in chunk]
                bar.update(len(chunk))
        return stored

    def _check_ids(self, ids: Sequence[str], *, replace: bool) -> None:
        seen: set[str] = set()
        for id in ids:
            if id in seen:
                raise DuplicateIdError(f"ids expects each id once, got {id!r} twice.")
            if not replace and id in self.index:
                raise DuplicateIdError(
                    f"add expects new ids, got {id!r}, which is in the index. "
                    "Use upsert to replace it, or another id."
                )
            seen.add(id)


def _legs(legs: Sequence[Mode], encoder: M3Encoder) -> tuple[Mode, ...]:
    if isinstance(legs, str) or not legs or len(set(legs)) != len(legs):
        raise InputError(f"legs expects a list of different names of {LEGS}, got {legs!r}.")
    for leg in legs:
        if leg not in LEGS:
            raise InputError(f"legs expects some of {LEGS}, got {leg!r}.")
    if "sparse" not in legs or "sparse" in encoder.outputs:
        return tuple(legs)
    kept = tuple(dict.fromkeys("bm25" if leg == "sparse" else leg for leg in legs))
    warnings.warn(
        f"{encoder.name!r} has no sparse head: BM25 serves as the lexical leg. "
        f"Pass legs={kept} to choose this yourself.",
        LexicalFallbackWarning,
        stacklevel=3,
    )
    return kept


def _ranks(scores: Floats) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return each position's rank, from 1; ties in order of position."""
    ranks = np.empty(len(scores), np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks
