"""rank_bm25 as the definition of BM25: how far a weighting's scores are from its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import InputError

if TYPE_CHECKING:
    from m3_retrievers.lexical.bm25 import BM25


def largest_difference(bm25: BM25, texts: Sequence[str], queries: Sequence[str]) -> float:
    """Return the largest difference between a weighting's scores and rank_bm25's.

    bm25: one that has counted nothing yet; it is fitted to the texts.

    Raises InputError for texts without a single term, which rank_bm25 cannot fit.
    """
    counts = bm25.count(texts)
    if not counts.nnz:
        raise InputError(
            f"verify expects texts with at least one term, got {len(texts)} without. "
            "Pass some of your documents."
        )
    bm25.fit(counts)
    impacts = bm25.impacts(counts)
    asked = [bm25.query(query) for query in queries]
    scores = [(impacts @ query.T).toarray()[:, 0] + bm25.base(query) for query in asked]
    expected = reference_scores(
        bm25, [bm25.terms(text) for text in texts], [bm25.terms(query) for query in queries]
    )
    return max(
        (float(np.abs(a - b).max()) for a, b in zip(scores, expected, strict=True)), default=0.0
    )


def reference_scores(
    bm25: BM25, documents: Sequence[list[str]], queries: Sequence[list[str]]
) -> list[NDArray[np.float64]]:
    """Return rank_bm25's scores (d,) of each query, under the weighting's parameters.

    documents, queries: lists of terms. rank_bm25 has no Lucene idf; where the weighting asks
    for it, rank_bm25's own is replaced, term by term, before it scores.
    """
    import rank_bm25

    fits = {"okapi": rank_bm25.BM25Okapi, "plus": rank_bm25.BM25Plus, "l": rank_bm25.BM25L}
    own = {"epsilon": bm25.epsilon} if bm25.variant == "okapi" else {"delta": bm25.delta}
    fitted = fits[bm25.variant]([*documents], k1=bm25.k1, b=bm25.b, **own)
    if bm25.idf == "lucene":
        containing = Counter(chain.from_iterable(fitted.doc_freqs))
        for term, n in containing.items():
            fitted.idf[term] = math.log(1 + (fitted.corpus_size - n + 0.5) / (n + 0.5))
    return [np.asarray(fitted.get_scores(query), np.float64) for query in queries]
