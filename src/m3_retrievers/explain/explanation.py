"""What an explanation holds: the texts as the model read them, terms, alignment, shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import require_package
from m3_retrievers.errors import MissingOutputError
from m3_retrievers.types.hits import Hit
from m3_retrievers.types.packed import Floats, TokenWeight
from m3_retrievers.types.plan import Mode

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ReadText:
    """A text as the model read it.

    tokens: what it saw, with character spans of ``text``; a token that stands for none of its
    characters (of a query instruction) has the span 0-0. unseen: how many tokens were cut off.
    vector_tokens: for each ColBERT vector the place of its token in ``tokens``, None for a
    special token. vector_labels: the spelling of each of these, special tokens included.
    """

    text: str
    tokens: tuple[TokenWeight, ...]
    unseen: int = 0
    vector_tokens: tuple[int | None, ...] = ()
    vector_labels: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        tokens = [
            {"id": t.id, "surface": t.surface, "span": [t.start, t.end], "weight": t.weight}
            for t in self.tokens
        ]
        return {"text": self.text, "tokens": tokens, "unseen_tokens": self.unseen}


@dataclass(frozen=True, slots=True)
class TermShare:
    """What one shared term adds to a lexical score, before the hybrid's weights.

    term: the vocabulary's spelling. score: query_weight · document_weight; for BM25+ its
    floor for a query term comes on top, also where the document lacks the term. query_weight:
    the learned weight, or how often BM25's query holds the term. document_weight: the learned
    weight, or BM25's impact. query_spans, document_spans: every place of the term, characters.
    """

    term: str
    score: float
    query_weight: float
    document_weight: float
    query_spans: tuple[Span, ...] = ()
    document_spans: tuple[Span, ...] = ()

    @property
    def expansion(self) -> bool:
        """Whether the term stands in neither text: a SPLADE model added it to both."""
        return not self.query_spans and not self.document_spans

    def to_dict(self) -> dict[str, Any]:
        return {
            "term": self.term,
            "score": self.score,
            "query_weight": self.query_weight,
            "document_weight": self.document_weight,
            "query_spans": [list(span) for span in self.query_spans],
            "document_spans": [list(span) for span in self.document_spans],
        }


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Which document token each query token found: similarities (i, j), in -1 to 1.

    >>> found = Alignment(np.array([[0.5, 0.25], [-0.5, 0.0]]))
    >>> found.best.tolist(), found.maxima.tolist(), found.score
    ([0, 1], [0.5, 0.0], 0.25)
    """

    similarities: Floats

    @property
    def best(self) -> NDArray[np.int64]:
        """(i,) the document vector that each query vector is nearest to, the first of equals."""
        if not self.similarities.size:
            return np.zeros(0, np.int64)
        return np.asarray(self.similarities.argmax(axis=1), np.int64)

    @property
    def maxima(self) -> Floats:
        """(i,) the similarity to it."""
        return self.similarities[np.arange(len(self.best)), self.best]

    @property
    def score(self) -> float:
        """The ColBERT score: the mean of the maxima, 0 where one side has no vector."""
        return float(self.maxima.mean()) if self.similarities.size else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Why one hit matched one query.

    terms: for each lexical mode of the hit the shared terms, largest share first; the scores
    of a mode's terms add up to the hit's score in it. alignment: None where the model has no
    ColBERT head; its score is the hit's, to 1e-5. notes: what limits the explanation.
    """

    query: ReadText
    document: ReadText
    hit: Hit
    terms: Mapping[Mode, tuple[TermShare, ...]]
    alignment: Alignment | None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Explanation({self.query.text!r:.60}, {self.hit.id!r:.60}, {self.hit.score:.3f})"

    @property
    def shares(self) -> dict[str, float]:
        """Each mode's weighted share of the hit's score; they add up to it."""
        return dict(self.hit.contributions)

    @property
    def lexical_mode(self) -> Mode | None:
        """The lexical mode that counts in the hit's score; else the first there is."""
        counting = [mode for mode in self.terms if mode in self.hit.contributions]
        return next(iter([*counting, *self.terms]), None)

    @property
    def lexical_terms(self) -> tuple[TermShare, ...]:
        """The shared terms of ``lexical_mode``."""
        return self.terms[self.lexical_mode] if self.lexical_mode else ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; of the alignment, each query token's best match."""
        hit = self.hit
        return {
            "id": hit.id,
            "score": hit.score,
            "scores": dict(hit.scores),
            "ranks": dict(hit.ranks),
            "shares": self.shares,
            "query": self.query.to_dict(),
            "document": self.document.to_dict(),
            "terms": {mode: [t.to_dict() for t in found] for mode, found in self.terms.items()},
            "alignment": None if self.alignment is None else self._matches(self.alignment),
            "notes": list(self.notes),
        }

    def _matches(self, alignment: Alignment) -> dict[str, Any]:
        rows = zip(alignment.best.tolist(), alignment.maxima.tolist(), strict=True)
        matches = [
            {
                "query_label": self.query.vector_labels[row],
                "query_token": self.query.vector_tokens[row],
                "document_label": self.document.vector_labels[column],
                "document_token": self.document.vector_tokens[column],
                "similarity": similarity,
            }
            for row, (column, similarity) in enumerate(rows)
        ]
        return {"score": alignment.score, "matches": matches}

    def to_pandas(self) -> DataFrame:
        """Return a pandas DataFrame with a row for each shared term, the largest first by mode.

        Columns: mode, term, score, share (what the term adds to the hit's score; NaN where its
        mode adds nothing to it), query_weight, document_weight, query_spans, document_spans.
        Raises MissingExtraError without pandas.
        """
        require_package("pandas", module="pandas", extra="pandas", purpose="to_pandas()")
        from pandas import DataFrame

        rows = []
        for mode, found in self.terms.items():
            total = self.hit.scores.get(mode)
            factor = self.shares[mode] / total if mode in self.shares and total else math.nan
            rows += [{"mode": mode, "share": one.score * factor, **asdict(one)} for one in found]
        names = [field.name for field in fields(TermShare)]
        return DataFrame(rows, columns=["mode", *names[:2], "share", *names[2:]])

    def alignment_to_pandas(self) -> DataFrame:
        """Return a pandas DataFrame with a row for each query token and its best match.

        Columns: query_label, query_token, document_label, document_token, similarity; a token is
        a place in ``query.tokens`` or ``document.tokens``, <NA> for a special token. The ColBERT
        score is the mean of the similarities. Every other pair is in ``alignment.similarities``.
        Raises MissingOutputError where the model has no ColBERT head, MissingExtraError without
        pandas.
        """
        if self.alignment is None:
            raise MissingOutputError(
                "alignment_to_pandas expects an alignment, got none: the model has no ColBERT "
                "head. Use one that has."
            )
        require_package("pandas", module="pandas", extra="pandas", purpose="to_pandas()")
        from pandas import DataFrame

        columns = ["query_label", "query_token", "document_label", "document_token", "similarity"]
        frame = DataFrame(self._matches(self.alignment)["matches"], columns=columns)
        return frame.astype({"query_token": "Int64", "document_token": "Int64"})

    def plot(self, *, width: int = 24) -> Figure:
        """Return a heat map of the alignment, a matplotlib Figure; see ``display.plots``."""
        from m3_retrievers.display.plots import heat_map

        return heat_map(self, width=width)

    def _repr_html_(self) -> str:
        from m3_retrievers.display.explanations import explanation

        return explanation(self)
