"""The best documents of one mode: those that Milvus finds, or all of them scored here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from m3_retrievers import scoring
from m3_retrievers.index.base import Filter
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.index.milvus.collection import MOST_HITS, among, batched
from m3_retrievers.index.milvus.connection import embedding_list
from m3_retrievers.index.milvus.documents import Documents
from m3_retrievers.index.milvus.facts import EVERYTHING, translate
from m3_retrievers.index.milvus.rows import given, key_of, metadata_of
from m3_retrievers.types.hits import Query, Ranking
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.representations import Output

_KEYS_A_SEARCH = 5000

Scored = tuple[float, int, str]  # score, place, id


@dataclass(frozen=True, slots=True)
class Admitted:
    """What may be found: an expression, and of what it admits the named keys, None for all."""

    expression: str
    keys: Sequence[str] | None

    @classmethod
    def by(cls, documents: Documents, filter: Filter | None, ids: Sequence[str] | None) -> Admitted:
        """Return what filter and ids admit; documents that Milvus cannot ask are asked here."""
        translated = translate(filter)
        keys = None if ids is None else list(dict.fromkeys(map(key_of, ids)))
        if translated.exact:
            return cls(translated.expression, keys)
        admits = compile_filter(filter)
        pages = documents.pages(translated.expression, ["metadata"], keys=keys)
        admitted = [row["key"] for page in pages for row in page if admits(metadata_of(row))]
        return cls(EVERYTHING, admitted)

    def expressions(self) -> Iterator[str]:
        """Yield expressions that together admit each of them once."""
        if self.keys is None:
            yield self.expression
            return
        for some in batched(self.keys, _KEYS_A_SEARCH):
            yield f"({self.expression}) and ({among(some)})"


def rank(
    documents: Documents, query: Query, mode: Output, *, k: int | None, admitted: Admitted
) -> Ranking:
    """Return the k best, all of them for None; a lexical mode leaves out what scores 0."""
    if k is None or k > MOST_HITS or mode == "colbert":
        scored = _scored_here(documents, query, mode, admitted)
    else:
        scored = _found_there(documents, query, mode, k, admitted)
    if mode == "sparse":
        scored = (one for one in scored if one[0] > 0)
    best = sorted(scored, key=lambda one: (-one[0], *one[1:]))[:k]
    scores = np.array([score for score, _, _ in best], np.float32)
    return Ranking(tuple(id for _, _, id in best), scores)


def _found_there(
    documents: Documents, query: Query, mode: Output, k: int, admitted: Admitted
) -> Iterator[Scored]:
    if mode == "dense":
        vector = query.representations.require("dense")[0].astype(np.float32).tolist()
    else:
        [vector] = query.representations.select(["sparse"]).to_dicts()
    if not vector:  # a question without terms finds nothing, and Milvus refuses it
        return
    for expression in admitted.expressions():
        yield from documents.collection.best(mode, vector, k=k, expression=expression)


def _scored_here(
    documents: Documents, query: Query, mode: Output, admitted: Admitted
) -> Iterator[Scored]:
    for rows in documents.pages(admitted.expression, ["id", mode], keys=admitted.keys):
        kept = documents.layout.representations(rows, [mode])
        scores = scoring.by_mode(mode, query.representations, kept)[0]
        for score, row in zip(scores.tolist(), rows, strict=True):
            yield score, row["place"], given(row["id"])


def sums_of_best(documents: Documents, query: Query, ids: Sequence[str]) -> Floats | None:
    """Return (n,) MaxSim of documents whose token vectors Milvus scores; None if some lack."""
    vectors = np.asarray(query.representations.require("colbert")[0], np.float32)
    asked = embedding_list(vectors)
    found: dict[str, float] = {}
    for some in batched(dict.fromkeys(map(key_of, ids)), _KEYS_A_SEARCH):
        hits = documents.collection.best("colbert[v]", asked, k=len(some), expression=among(some))
        found |= {id: score / max(1, len(vectors)) for score, _, id in hits}
    if any(id not in found for id in ids):
        return None
    return np.array([found[id] for id in ids], np.float32)
