"""BM25 as term weights, with rank_bm25 as the definition (Okapi, Plus, L).

A document's score is a sum over the query's terms, so everything but the query is known
beforehand: the *impact* of a term in a document. Impacts go into an inverted index, and
``base + Σ query count · impact`` equals rank_bm25's ``get_scores`` for every document.
Trotman, Puurula and Burgess, "Improvements to BM25 and Language Models Examined"
(ADCS 2014), compare the variants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias

import numpy as np
import rank_bm25
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers.errors import InputError
from m3_retrievers.lexical.tokenizers import WordTokenizer, from_state
from m3_retrievers.types.packed import offsets_of
from m3_retrievers.types.plan import Mode

Variant: TypeAlias = Literal["okapi", "plus", "l"]
Idf: TypeAlias = Literal["lucene", "rank_bm25"]

_REFERENCES = {
    "okapi": rank_bm25.BM25Okapi,
    "plus": rank_bm25.BM25Plus,
    "l": rank_bm25.BM25L,
}
_DELTAS = {"okapi": 0.0, "plus": 1.0, "l": 0.5}


@dataclass(frozen=True, slots=True, eq=False)
class _Statistics:
    """What a collection says: average length, and idf and largest count of each term (v,)."""

    average_length: float
    idf: NDArray[np.float64]
    largest: NDArray[np.float64]


_NOTHING = _Statistics(0.0, np.zeros(0), np.zeros(0))


class BM25:
    """Term weights that depend on the collection; an index's ``TermWeighting``.

    variant: ``okapi``, ``plus`` or ``l``, each as rank_bm25 writes it. idf: ``lucene``,
    log(1 + (N - n + 0.5)/(n + 0.5)), never negative; or ``rank_bm25``, that package's own for
    the variant, where Okapi floors a negative idf at ``epsilon`` times the average.
    k1 ≥ 0; b in 0..1; delta ≥ 0, None for rank_bm25's (1 for plus, 0.5 for l; Okapi has none).
    tokenizer: ``str -> list[str]``, words without a stop list where none is given.

    Raises InputError for a parameter outside its range.

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
        tokenizer: Callable[[str], list[str]] | None = None,
    ) -> None:
        if variant not in _REFERENCES:
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
        self.tokenizer = WordTokenizer() if tokenizer is None else tokenizer
        self._columns: dict[str, int] = {}
        self._statistics = _NOTHING
        self._defined = False

    def count(self, texts: Sequence[str]) -> sp.csr_array:
        """Return float64 (n, v): how often each term occurs; new terms get new columns.

        Raises InputError if one of the texts is not a string, before anything is counted.
        """
        columns = self._columns
        return self._counted(
            [
                [columns.setdefault(term, len(columns)) for term in terms]
                for terms in self._split(texts)
            ]
        )

    def query(self, text: str) -> sp.csr_array:
        """Return (1, v): how often each known term occurs in the query, which adds no term."""
        (terms,) = self._split([text])
        return self._counted([[self._columns[term] for term in terms if term in self._columns]])

    def column(self, term: str) -> int | None:
        """Return a term's column in the counts, None for a term no document has."""
        return self._columns.get(term)

    def fit(self, counts: sp.csr_array) -> None:
        """Take the statistics of all live documents, counts (n, v).

        The first fit is rank_bm25's own; the later ones are the same sums over the counts,
        in a hundredth of the time.
        """
        if counts.nnz and not self._defined:
            self._statistics = self._by_rank_bm25(counts)
            self._defined = True
        else:
            self._statistics = self._by_counts(counts)

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
        weights = _pick(self._statistics.idf, counts.indices) * gain
        return sp.csr_array((weights, counts.indices, counts.indptr), shape=counts.shape)

    def base(self, query: sp.csr_array) -> float:
        """Return the score of a document that holds none of the terms.

        Plus gives each document idf · delta for each query term; the other variants give 0.
        """
        if self.variant != "plus":
            return 0.0
        return float(query.data @ _pick(self._statistics.idf, query.indices)) * self.delta

    def scale(self, query: sp.csr_array) -> float:
        """Return 1 / (a score the query cannot exceed), so that score · scale lies in 0..1.

        The bound is Σ count · idf · most, where most is what a term can give at best: k1 + 1
        for Okapi, k1 + 1 + delta for Plus, and for L, which grows with the count without limit,
        k1 + 1 times the term's largest count in the collection. Only idf above 0 counts;
        with none the scale is 0. (Where ``idf="rank_bm25"`` is negative, so may a score be.)
        """
        idf = np.maximum(_pick(self._statistics.idf, query.indices), 0.0)
        most = np.full(len(idf), self.k1 + 1)
        if self.variant == "plus":
            most += self.delta
        if self.variant == "l":
            most *= _pick(self._statistics.largest, query.indices)
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
        bm25._columns = {term: column for column, term in enumerate(state["vocabulary"])}
        bm25._defined = bool(bm25._columns)
        return bm25

    def _split(self, texts: Sequence[str]) -> list[list[str]]:
        if isinstance(texts, str):
            raise InputError("count expects a list of texts, got one string: wrap it in a list.")
        for text in texts:
            if not isinstance(text, str):
                raise InputError(f"BM25 expects texts as str, got {text!r:.80}.")
        return [self.tokenizer(text) for text in texts]

    def _counted(self, rows: list[list[int]]) -> sp.csr_array:
        columns = np.fromiter(chain.from_iterable(rows), np.int64)
        offsets = offsets_of([len(row) for row in rows])
        shape = (len(rows), len(self._columns))
        counts = sp.csr_array((np.ones(len(columns)), columns, offsets), shape=shape)
        counts.sum_duplicates()
        return counts

    def _by_rank_bm25(self, counts: sp.csr_array) -> _Statistics:
        """Fit rank_bm25 itself, on documents of column numbers."""
        terms = np.repeat(counts.indices, counts.data.astype(np.int64))
        lengths = np.asarray(counts.sum(axis=1)).astype(np.int64)
        documents = [part.tolist() for part in np.split(terms, np.cumsum(lengths)[:-1])]
        own = {"epsilon": self.epsilon} if self.variant == "okapi" else {"delta": self.delta}
        fitted = _REFERENCES[self.variant](documents, k1=self.k1, b=self.b, **own)
        containing = np.bincount(
            np.fromiter(chain.from_iterable(fitted.doc_freqs), np.int64), minlength=counts.shape[1]
        )
        idf = np.zeros(counts.shape[1])
        if self.idf == "rank_bm25":
            idf[list(fitted.idf)] = list(fitted.idf.values())
        else:
            idf = _lucene(containing, fitted.corpus_size)
        return _Statistics(float(fitted.avgdl), idf, _largest(counts))

    def _by_counts(self, counts: sp.csr_array) -> _Statistics:
        """Take the same statistics without rank_bm25."""
        size, width = counts.shape
        if not counts.nnz:
            return _Statistics(0.0, np.zeros(width), np.zeros(width))
        containing = np.bincount(counts.indices, minlength=width)
        idf = _lucene(containing, size) if self.idf == "lucene" else self._own(containing, size)
        return _Statistics(float(counts.sum()) / size, idf, _largest(counts))

    def _own(self, containing: NDArray[np.int64], size: int) -> NDArray[np.float64]:
        """Return rank_bm25's idf of the variant, 0 for a term that no live document holds."""
        idf = np.zeros(len(containing))
        live = containing > 0
        n = containing[live].astype(np.float64)
        if self.variant == "okapi":
            values = np.log(size - n + 0.5) - np.log(n + 0.5)
            values[values < 0] = self.epsilon * values.mean()
        elif self.variant == "plus":
            values = np.log((size + 1) / n)
        else:
            values = np.log(size + 1) - np.log(n + 0.5)
        idf[live] = values
        return idf


def _lucene(containing: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    idf = np.log1p((size - containing + 0.5) / (containing + 0.5))
    return np.where(containing > 0, idf, 0.0)


def _largest(counts: sp.csr_array) -> NDArray[np.float64]:
    """Return (v,) the largest count of each term in one document."""
    largest = np.zeros(counts.shape[1])
    np.maximum.at(largest, counts.indices, counts.data)
    return largest


def _pick(values: NDArray[np.float64], columns: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return the values at the columns, 0 for columns newer than the values."""
    picked = np.zeros(len(columns))
    known = columns < len(values)
    picked[known] = values[columns[known]]
    return picked


def _in_range(name: str, value: float, *, high: float = math.inf) -> float:
    number = isinstance(value, int | float | np.integer | np.floating)
    if not number or isinstance(value, bool) or not math.isfinite(value) or not 0 <= value <= high:
        span = "≥ 0" if high == math.inf else f"in 0..{high:g}"
        raise InputError(f"{name} expects a finite number {span}, got {value!r}.")
    return float(value)
