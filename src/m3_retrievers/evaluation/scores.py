"""Every mode's score of every document, a block of queries at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers import scoring
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.lexical.tokenizers import WordTokenizer
from m3_retrievers.packed import Floats
from m3_retrievers.representations import Mode, Representations

# Queries scored at once: 64 of them over 100,000 documents are 26 MB a mode.
BLOCK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Scores (b, n) of b queries, from row ``first``; scales (b,) bring BM25 to 0..1."""

    first: int
    scores: Mapping[Mode, Floats]
    scales: NDArray[np.float64]


class Scorer:
    """Scores queries against all documents in each mode asked for.

    queries, documents: representations with the modes' outputs. bm25: fitted here on the
    texts; words without English stop words by default.
    """

    def __init__(
        self,
        queries: Representations,
        documents: Representations,
        *,
        query_texts: Sequence[str],
        document_texts: Sequence[str],
        modes: Sequence[Mode],
        bm25: BM25 | None = None,
    ) -> None:
        self._queries = queries
        self._documents = documents
        self._texts = query_texts
        self._modes = modes
        self._bm25 = bm25 or BM25(tokenizer=WordTokenizer(stop_words="en"))
        self._impacts: sp.csr_array | None = None
        if "bm25" in modes:
            counts = self._bm25.count(document_texts)
            self._bm25.fit(counts)
            self._impacts = self._bm25.impacts(counts)

    def __iter__(self) -> Iterator[Block]:
        for first in range(0, len(self._texts), BLOCK):
            rows = slice(first, first + BLOCK)
            queries = self._queries[rows] if self._queries.outputs else self._queries
            scores: dict[Mode, Floats] = {}
            scales = np.ones(len(self._texts[rows]))
            for mode in self._modes:
                if mode == "bm25":
                    scores[mode], scales = self._lexical(self._texts[rows])
                else:
                    scores[mode] = scoring.by_mode(mode, queries, self._documents)
            yield Block(first, scores, scales)

    def _lexical(self, texts: Sequence[str]) -> tuple[Floats, NDArray[np.float64]]:
        assert self._impacts is not None
        rows = [self._bm25.query(text) for text in texts]
        width = self._impacts.shape[1]
        counts = sp.vstack(
            [sp.csr_array((row.data, row.indices, row.indptr), shape=(1, width)) for row in rows],
            format="csr",
        )
        base = np.array([self._bm25.base(row) for row in rows])
        scales = np.array([self._bm25.scale(row) for row in rows])
        return scoring.lexical(sp.csr_array(counts), self._impacts) + base[:, None], scales
