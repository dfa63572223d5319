"""The best documents of one mode: those that Milvus finds, or all of them scored here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m3_retrievers import scoring
from m3_retrievers.index.base import Filter
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.index.milvus.collection import MOST_HITS, Collection, among, batched
from m3_retrievers.index.milvus.connection import embedding_list
from m3_retrievers.index.milvus.facts import EVERYTHING, translate
from m3_retrievers.index.milvus.layout import Layout, Row
from m3_retrievers.index.milvus.rows import given, key_of, metadata_of
from m3_retrievers.types.hits import Query, Ranking
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.representations import Output

# Keys that one expression names, and rows whose vectors are read at a time.
_KEYS_A_SEARCH = 5000
_ROWS_SCORED = 1000
_DOCUMENTS_WITH_PARTS = 100

Scored = tuple[float, int, str]  # score, place, key


@dataclass(frozen=True, slots=True)
class Admitted:
    """What may be found: an expression, and of what it admits the named keys, None for all."""

    expression: str
    keys: Sequence[str] | None

    @classmethod
    def by(
        cls, documents: Collection, filter: Filter | None, ids: Sequence[str] | None
    ) -> Admitted:
        """Return what filter and ids admit; documents that Milvus cannot ask are asked here."""
        translated = translate(filter)
        keys = None if ids is None else list(dict.fromkeys(map(key_of, ids)))
        if translated.exact:
            return cls(translated.expression, keys)
        admits = compile_filter(filter)
        fields = ["key", "metadata"]
        pages = (
            documents.pages(translated.expression, fields)
            if keys is None
            else documents.named(keys, fields)
        )
        return cls(
            EVERYTHING, [row["key"] for page in pages for row in page if admits(metadata_of(row))]
        )

    def expressions(self) -> Iterator[str]:
        """Yield expressions that together admit each of them once."""
        if self.keys is None:
            yield self.expression
            return
        for some in batched(self.keys, _KEYS_A_SEARCH):
            yield f"({self.expression}) and ({among(some)})"


@dataclass(frozen=True, slots=True)
class Ranker:
    """Ranks the documents of a collection.

    with_vectors: returns rows with their ColBERT vectors, those whose vectors are there.
    """

    documents: Collection
    layout: Layout
    with_vectors: Callable[[Mapping[str, Row]], dict[str, Row]]

    def rank(self, query: Query, mode: Output, k: int | None, admitted: Admitted) -> Ranking:
        """Return the k best, all of them for None; a lexical mode leaves out what scores 0."""
        if k is None or k > MOST_HITS or mode == "colbert":
            scored = self._scored_here(query, mode, admitted)
        else:
            scored = self._found_there(query, mode, k, admitted)
        if mode == "sparse":
            scored = (one for one in scored if one[0] > 0)
        best = sorted(scored, key=lambda one: (-one[0], one[1], one[2]))[:k]
        ids = {
            row["key"]: given(row["id"])
            for page in self.documents.named([key for _, _, key in best], ["key", "id"])
            for row in page
        }
        kept = [(score, ids[key]) for score, _, key in best if key in ids]
        scores = np.array([score for score, _ in kept], np.float32)
        return Ranking(tuple(id for _, id in kept), scores)

    def _found_there(
        self, query: Query, mode: Output, k: int, admitted: Admitted
    ) -> Iterator[Scored]:
        if mode == "dense":
            vector = query.representations.require("dense")[0].astype(np.float32).tolist()
        else:
            [vector] = query.representations.select(["sparse"]).to_dicts()
        if not vector:  # a question without terms finds nothing, and Milvus refuses it
            return
        for expression in admitted.expressions():
            yield from self.documents.best(mode, vector, k=k, expression=expression)

    def _scored_here(self, query: Query, mode: Output, admitted: Admitted) -> Iterator[Scored]:
        parts = mode == "colbert" and self.layout.parts
        at_once = _DOCUMENTS_WITH_PARTS if mode == "colbert" else _ROWS_SCORED
        fields = ["key", "place", "parts", *self.layout.vector_fields([mode])]
        for expression in admitted.expressions():
            for page in self.documents.pages(expression, fields, at_once=at_once):
                rows = {row["key"]: row for row in page}
                whole = list((self.with_vectors(rows) if parts else rows).values())
                kept = self.layout.representations(whole, [mode])
                scores = scoring.by_mode(mode, query.representations, kept)[0]
                for score, row in zip(scores.tolist(), whole, strict=True):
                    yield score, row["place"], row["key"]


def sums_of_best(documents: Collection, query: Query, ids: Sequence[str]) -> Floats | None:
    """Return (n,) MaxSim of documents whose token vectors Milvus scores; None if some lack."""
    vectors = np.asarray(query.representations.require("colbert")[0], np.float32)
    keys = [key_of(id) for id in ids]
    found: dict[str, float] = {}
    for some in batched(dict.fromkeys(keys), _KEYS_A_SEARCH):
        hits = documents.best(
            "colbert[v]", embedding_list(vectors), k=len(some), expression=among(some)
        )
        found |= {key: score / max(1, len(vectors)) for score, _, key in hits}
    if any(key not in found for key in keys):
        return None
    return np.array([found[key] for key in keys], np.float32)
