"""BM25 as term weights, with rank_bm25 as the definition (Okapi, Plus, L).

A document's score is a sum over the query's terms, so everything but the query is known
beforehand: the *impact* of a term in a document. Impacts go into an inverted index, and
``base + Σ query count · impact`` equals rank_bm25's ``get_scores`` for every document.
Trotman, Puurula and Burgess, "Improvements to BM25 and Language Models Examined"
(ADCS 2014), compare the variants.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse as sp

from m3_retrievers.errors import InputError
from m3_retrievers.habits import guided
from m3_retrievers.lexical.counting import Vocabulary, counted
from m3_retrievers.lexical.statistics import NO_STATISTICS, Idf, Statistics, Variant, pick
from m3_retrievers.lexical.tokenizers import WordTokenizer, as_tokenizer, from_state
from m3_retrievers.lexical.verification import largest_difference
from m3_retrievers.types.plan import Mode

_DELTAS = {"okapi": 0.0, "plus": 1.0, "l": 0.5}


@guided()
class BM25:
    """Term weights that depend on the collection; an index's ``TermWeighting``.

    variant: ``okapi``, ``plus`` or ``l``, each as rank_bm25 writes it. idf: ``lucene``,
    log(1 + (N - n + 0.5)/(n + 0.5)), never negative; or ``rank_bm25``, that package's own for
    the variant, where Okapi floors a negative idf at ``epsilon`` times the average.
    k1 ≥ 0; b in 0..1; delta ≥ 0, None for rank_bm25's (1 for plus, 0.5 for l; Okapi has none).
    tokenizer: None for words, and pairs of characters where a script has no spaces; a language
    such as ``"german"`` for its stems; any other that ``lexical.tokenizers.as_tokenizer`` takes.

    Raises InputError for a parameter outside its range, MissingExtraError for a language where
    PyStemmer is not installed.

    >>> bm25 = BM25(b=0.0)
    >>> counts = bm25.count(["red red fox", "blue fox"])
    >>> bm25.fit(counts)
    >>> # red: n = 1 of N = 2, idf = log 2; a count of 2 gives log 2 · 2 · 2.5 / 3.5
    >>> bm25.impacts(counts).toarray()[0].round(4).tolist()
    [0.9902, 0.1823, 0.0]
    >>> bm25.query("red fox, red wolf").toarray().tolist()
    [[2.0, 1.0, 0.0]]
    """

    name: Mode = "bm25"

    def __init__(
        self,
        *,
        variant: Variant = "okapi",
        idf: Idf = "lucene",
        k1: float = 1.5,
        b: float = 0.75,
        epsilon: float = 0.25,
        delta: float | None = None,
        tokenizer: Callable[[str], list[str]] | str | None = None,
    ) -> None:
        if variant not in _DELTAS:
            raise InputError(f"variant expects 'okapi', 'plus' or 'l', got {variant!r}.")
        if idf not in ("lucene", "rank_bm25"):
            raise InputError(f"idf expects 'lucene' or 'rank_bm25', got {idf!r}.")
        if variant == "okapi" and delta is not None:
            raise InputError(
                f"delta belongs to the variants 'plus' and 'l', got {delta!r} with 'okapi'. "
                "Leave it out, or choose another variant."
            )
        self.variant, self.idf = variant, idf
        self.k1 = _in_range("k1", k1)
        self.b = _in_range("b", b, high=1.0)
        self.epsilon = _in_range("epsilon", epsilon)
        self.delta = _in_range("delta", _DELTAS[variant] if delta is None else delta)
        self.tokenizer = as_tokenizer(tokenizer)
        self._columns = Vocabulary()
        self._statistics = NO_STATISTICS

    def __repr__(self) -> str:
        return f"BM25(variant={self.variant!r}, idf={self.idf!r}, k1={self.k1}, b={self.b})"

    def count(self, texts: Sequence[str]) -> sp.csr_array:
        """Return float64 (n, v): how often each term occurs; new terms get new columns.

        Raises InputError if one of the texts is not a string, before anything is counted.
        """
        return counted(self._split(texts), self._columns)

    def query(self, text: str) -> sp.csr_array:
        """Return (1, v): how often each known term occurs in the query, which adds no term."""
        (terms,) = self._split([text])
        known = Counter(self._columns[term] for term in terms if term in self._columns)
        columns = sorted(known)
        counts = np.array([known[column] for column in columns], np.float64)
        shape, offsets = (1, len(self._columns)), np.array([0, len(columns)])
        return sp.csr_array((counts, np.array(columns, np.int64), offsets), shape=shape)

    def column(self, term: str) -> int | None:
        """Return a term's column in the counts, None for a term no document has."""
        return self._columns.get(term)

    def terms(self, text: str) -> list[str]:
        """Return the terms of a text as the tokenizer gives them, known or not.

        >>> BM25().terms("The red fox, the 红狐狸")
        ['the', 'red', 'fox', 'the', '红狐', '狐狸']
        """
        (terms,) = self._split([text])
        return terms

    def fit(self, counts: sp.csr_array) -> None:
        """Take the statistics of all live documents, counts (n, v)."""
        self._statistics = Statistics.of(
            counts, variant=self.variant, idf=self.idf, epsilon=self.epsilon
        )

    def compacted(self, counts: sp.csr_array) -> tuple[BM25, sp.csr_array]:
        """Return a weighting that knows only the terms of these documents, and their counts.

        counts (n, v) are this weighting's, of the documents that stay; terms keep their order.
        The new weighting gives the new counts (n, v') the impacts that this one gives the old,
        and shares nothing with it but the tokenizer: neither this one nor ``counts`` changes.

        >>> bm25 = BM25()
        >>> counts = bm25.count(["red fox", "blue fox"])
        >>> smaller, kept = bm25.compacted(counts[[1]])
        >>> kept.toarray().tolist(), smaller.column("fox"), smaller.column("red")
        ([[1.0, 1.0]], 0, None)
        """
        kept, columns = np.unique(counts.indices, return_inverse=True)
        shape = (counts.shape[0], len(kept))
        renumbered = sp.csr_array((counts.data.copy(), columns, counts.indptr.copy()), shape=shape)
        smaller = copy.copy(self)
        vocabulary = list(self._columns)
        smaller._columns = Vocabulary(
            zip((vocabulary[old] for old in kept.tolist()), range(len(kept)), strict=True)
        )
        smaller._statistics = self._statistics.only(kept)
        return smaller, renumbered

    def verify(self, texts: Sequence[str], queries: Sequence[str] | None = None) -> float:
        """Return the largest difference between these scores and rank_bm25's own.

        Fits both on the texts; this weighting stays as it is. queries: what both are asked,
        None for the first ten texts. Differences are of rounding, some 1e-15 of a score.

        Raises InputError for texts without a single term, which rank_bm25 cannot fit.

        >>> BM25(variant="plus").verify(["red red fox", "blue fox"], ["fox", "red wolf"]) < 1e-12
        True
        """
        own = copy.copy(self)
        own._columns, own._statistics = Vocabulary(), NO_STATISTICS
        return largest_difference(own, texts, texts[:10] if queries is None else queries)

    def impacts(self, counts: sp.csr_array) -> sp.csr_array:
        """Return float64 (n, v): what each term adds to a document's score, idf included.

        For Plus, what it adds beyond ``base``. A term that no fit has seen adds 0.
        """
        k1, b, delta = self.k1, self.b, self.delta
        counts = counts.astype(np.float64)
        lengths = np.asarray(counts.sum(axis=1)) / (self._statistics.average_length or 1.0)
        norm = np.repeat(1 - b + b * lengths, np.diff(counts.indptr))
        tf = counts.data
        if self.variant == "l":
            # rank_bm25 multiplies by the count once more than the paper; it is the definition
            level = tf / norm + delta
            gain = tf * (k1 + 1) * level / (k1 + level)
        else:
            gain = tf * (k1 + 1) / (tf + k1 * norm)
        weights = pick(self._statistics.idf, counts.indices) * gain
        return sp.csr_array((weights, counts.indices, counts.indptr), shape=counts.shape)

    def base(self, query: sp.csr_array) -> float:
        """Return the score of a document that holds none of the terms.

        Plus gives each document idf · delta for each query term; the other variants give 0.
        """
        if self.variant != "plus":
            return 0.0
        return float(query.data @ pick(self._statistics.idf, query.indices)) * self.delta

    def scale(self, query: sp.csr_array) -> float:
        """Return 1 / (a score the query cannot exceed), so that score · scale lies in 0..1.

        The bound is Σ count · idf · most, where most is what a term can give at best: k1 + 1
        for Okapi, k1 + 1 + delta for Plus, and for L, which grows with the count without limit,
        k1 + 1 times the term's largest count in the collection. Only idf above 0 counts;
        with none the scale is 0. (Where ``idf="rank_bm25"`` is negative, so may a score be.)
        """
        idf = np.maximum(pick(self._statistics.idf, query.indices), 0.0)
        most = np.full(len(idf), self.k1 + 1)
        if self.variant == "plus":
            most += self.delta
        if self.variant == "l":
            most *= pick(self._statistics.largest, query.indices)
        bound = float(np.sum(query.data * idf * most))
        return 1.0 / bound if bound > 0 else 0.0

    def state(self) -> dict[str, Any]:
        """Return parameters, tokenizer and vocabulary as JSON; statistics come from ``fit``.

        Raises InputError for a tokenizer without a ``state``.
        """
        if not hasattr(self.tokenizer, "state"):
            raise InputError(
                f"Saving BM25 expects a tokenizer with state(), got {self.tokenizer!r}. "
                "Use one of m3_retrievers.lexical.tokenizers."
            )
        return {
            "variant": self.variant,
            "idf": self.idf,
            "k1": self.k1,
            "b": self.b,
            "epsilon": self.epsilon,
            "delta": None if self.variant == "okapi" else self.delta,
            "tokenizer": self.tokenizer.state(),
            "vocabulary": list(self._columns),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], *, subword: Any = None) -> BM25:
        """Return the weighting that ``state()`` described, to be fitted to the saved counts.

        subword: the encoder's transformers tokenizer, where the tokenizer was its own.
        """
        parameters = {key: state[key] for key in ("variant", "idf", "k1", "b", "epsilon", "delta")}
        tokenizer = from_state(state["tokenizer"], subword=subword)
        bm25 = cls(tokenizer=tokenizer, **parameters)
        bm25._columns = Vocabulary(
            (term, column) for column, term in enumerate(state["vocabulary"])
        )
        return bm25

    def _split(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """Return the terms of each text, made as they are asked for; the texts are checked now."""
        if isinstance(texts, str):
            raise InputError("BM25 expects a list of texts, got one string: wrap it in a list.")
        for text in texts:
            if not isinstance(text, str):
                raise InputError(f"BM25 expects texts as str, got {text!r:.80}.")
        split = self.tokenizer
        return map(split, texts) if isinstance(split, WordTokenizer) else map(self._checked, texts)

    def _checked(self, text: str) -> list[str]:
        terms = self.tokenizer(text)
        # the kinds are few, whereas the terms are many
        if not isinstance(terms, list | tuple) or not all(
            issubclass(kind, str) for kind in set(map(type, terms))
        ):
            raise InputError(
                "tokenizer expects a callable that splits a text into a list of words, got "
                f"one that returned {terms!r:.80}. Return a list of strings."
            )
        return list(terms)


def _in_range(name: str, value: float, *, high: float = math.inf) -> float:
    number = isinstance(value, int | float | np.integer | np.floating)
    if not number or isinstance(value, bool) or not math.isfinite(value) or not 0 <= value <= high:
        span = "≥ 0" if high == math.inf else f"in 0..{high:g}"
        raise InputError(f"{name} expects a finite number {span}, got {value!r}.")
    return float(value)


def as_bm25(
    bm25: BM25 | None = None, tokenizer: Callable[[str], list[str]] | str | None = None
) -> BM25:
    """Return the given weighting, or one with the given tokenizer.

    Raises InputError for both at once, and for a ``bm25`` that is none.

    >>> as_bm25(tokenizer="english").terms("pages")
    ['page']
    """
    if bm25 is None:
        return BM25(tokenizer=tokenizer)
    if not isinstance(bm25, BM25):
        raise InputError(
            f"bm25 expects a BM25 such as BM25(k1=1.2), got {bm25!r:.80}. For another tokenizer "
            "alone pass tokenizer=…"
        )
    if tokenizer is not None:
        raise InputError(
            f"expected bm25= or tokenizer=, got both ({tokenizer!r:.80}). Write "
            "bm25=BM25(…, tokenizer=…)."
        )
    return bm25
