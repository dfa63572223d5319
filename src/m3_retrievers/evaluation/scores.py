"""Every mode's score of every document, a block of queries at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers import scoring
from m3_retrievers.errors import InputError
from m3_retrievers.evaluation.datasets import Collection
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.lexical.tokenizers import WordTokenizer
from m3_retrievers.scoring.top import top_k
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import Representations

# Queries scored at once: 64 of them over 100,000 documents are 26 MB a mode.
BLOCK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Scores (b, n) of b queries, from row ``first``.

    scales (b,) bring BM25 to 0..1; bases (b,) are what it gives to a document without a
    shared term.
    """

    first: int
    scores: Mapping[Mode, Floats]
    scales: NDArray[np.float64]
    bases: NDArray[np.float64]

    def shares(self, mode: Mode) -> Floats:
        """Return (b, n) what a mode adds to a hybrid score, before its weight."""
        scores = self.scores[mode]
        return scores * self.scales[:, None] if mode == "bm25" else scores

    def matched(self, mode: Mode) -> NDArray[np.bool_]:
        """Return (b, n) True for what a mode retrieves: a lexical one needs a shared term."""
        if mode == "sparse":
            return self.scores[mode] > 0
        if mode == "bm25":
            return self.scores[mode] > self.bases[:, None]
        return np.ones(self.scores[mode].shape, bool)

    def recalled(self, mode: Mode, depth: int) -> NDArray[np.bool_]:
        """Return (b, n) True for the best ``depth`` documents that a mode retrieves."""
        found = np.zeros(self.scores[mode].shape, bool)
        for row, (scores, mask) in enumerate(
            zip(self.scores[mode], self.matched(mode), strict=True)
        ):
            found[row, top_k(scores, depth, candidates=mask)] = True
        return found


def word_bm25() -> BM25:
    """Return the BM25 that stands for its kind: words, English stop words dropped."""
    return BM25(tokenizer=WordTokenizer(stop_words="en"))


class Scorer:
    """Scores queries against all documents in each mode asked for.

    queries, documents: representations with the modes' outputs. bm25: fitted here on the texts.

    Raises InputError for representations of other texts.
    """

    def __init__(
        self,
        queries: Representations,
        documents: Representations,
        *,
        query_texts: Sequence[str],
        document_texts: Sequence[str],
        modes: Sequence[Mode],
        bm25: BM25,
    ) -> None:
        for found, texts in ((queries, query_texts), (documents, document_texts)):
            if found.outputs and len(found) != len(texts):
                raise InputError(
                    f"representations expects one for each of {len(texts)} texts, got {len(found)}."
                    " Make them of this collection, by represent()."
                )
        self._queries = queries
        self._documents = documents
        self._texts = query_texts
        self._modes = modes
        self._bm25 = bm25
        self._impacts: sp.csr_array | None = None
        if "bm25" in modes:
            counts = self._bm25.count(document_texts)
            self._bm25.fit(counts)
            self._impacts = self._bm25.impacts(counts)

    @classmethod
    def over(
        cls,
        collection: Collection,
        representations: tuple[Representations, Representations],
        *,
        modes: Sequence[Mode],
        bm25: BM25,
    ) -> Scorer:
        """Return the scorer of a collection; representations: of its queries and documents."""
        return cls(
            *representations,
            query_texts=list(collection.queries.values()),
            document_texts=list(collection.documents.values()),
            modes=modes,
            bm25=bm25,
        )

    def __iter__(self) -> Iterator[Block]:
        """Yield the scores of all queries, in order, a block at a time."""
        for first in range(0, len(self._texts), BLOCK):
            rows = slice(first, first + BLOCK)
            queries = self._queries[rows] if self._queries.outputs else self._queries
            scores: dict[Mode, Floats] = {}
            scales, bases = np.ones((2, len(self._texts[rows])))
            for mode in self._modes:
                if mode == "bm25":
                    scores[mode], scales, bases = self._lexical(self._texts[rows])
                else:
                    scores[mode] = scoring.by_mode(mode, queries, self._documents)
            yield Block(first, scores, scales, bases)

    def _lexical(
        self, texts: Sequence[str]
    ) -> tuple[Floats, NDArray[np.float64], NDArray[np.float64]]:
        assert self._impacts is not None
        rows = [self._bm25.query(text) for text in texts]
        width = self._impacts.shape[1]
        counts = sp.vstack(
            [sp.csr_array((row.data, row.indices, row.indptr), shape=(1, width)) for row in rows],
            format="csr",
        )
        bases = np.array([self._bm25.base(row) for row in rows])
        scales = np.array([self._bm25.scale(row) for row in rows])
        return scoring.lexical(sp.csr_array(counts), self._impacts) + bases[:, None], scales, bases
