"""BM25 inside Qdrant: a sparse vector of saturated counts, to which the engine adds the idf.

A document's weight of a term is tf · (k1 + 1) / (tf + k1 · (1 - b + b · length / average)); the
query's is the term's count; the engine multiplies by log(1 + (N - n + 0.5) / (n + 0.5)), which
is this package's ``idf="lucene"`` (rank_bm25 has another). Two things differ from BM25 over a
LocalIndex: the average length is fixed when the collection is made, and N and n are what the
engine knows, which counts deleted documents until it tidies up, and a shard at a time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from m3_retrievers.errors import InputError
from m3_retrievers.index.base import TermWeighting
from m3_retrievers.index.qdrant.requests import Terms


@dataclass(frozen=True, slots=True, eq=False)
class EngineBM25:
    """How texts become BM25's sparse vectors.

    Raises InputError for a weighting other than Okapi BM25 with Lucene's idf.
    """

    weighting: TermWeighting
    k1: float
    b: float

    @classmethod
    def of(cls, weighting: TermWeighting) -> EngineBM25:
        """Return the weights of a ``BM25``."""
        state = weighting.state()
        named = {key: state.get(key) for key in ("variant", "idf")}
        if named != {"variant": "okapi", "idf": "lucene"}:
            raise InputError(
                "Qdrant computes BM25 with variant='okapi' and idf='lucene', got "
                f"{named}. Pass weighting=BM25() with other k1, b or tokenizer."
            )
        return cls(weighting, float(state["k1"]), float(state["b"]))

    @property
    def settings(self) -> dict[str, Any]:
        """What two writers of a collection have to agree on, as JSON."""
        return {"k1": self.k1, "b": self.b, "tokenizer": self.weighting.state()["tokenizer"]}

    def average(self, texts: Sequence[str]) -> float:
        """Return the mean number of terms of the texts, at least 1."""
        lengths = [len(self.weighting.terms(text)) for text in texts]
        return max(1.0, sum(lengths) / len(lengths)) if lengths else 1.0

    def document(self, text: str, average: float) -> Terms | None:
        """Return a text's saturated counts; None where it has no terms."""
        terms = self.weighting.terms(text)
        norm = self.k1 * (1 - self.b + self.b * len(terms) / average)
        return _sparse({t: n * (self.k1 + 1) / (n + norm) for t, n in _counted(terms).items()})

    def query(self, text: str) -> Terms | None:
        """Return a query's counts; None where it has no terms."""
        return _sparse({t: float(n) for t, n in _counted(self.weighting.terms(text)).items()})


def term_index(term: str) -> int:
    """Return a term's place in the sparse vectors: 32 bits of its BLAKE2b digest.

    No vocabulary has to be shared that way; of 100,000 terms about one pair falls together.

    >>> term_index("fox") == term_index("fox"), 0 <= term_index("") < 2**32
    (True, True)
    """
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def _counted(terms: Sequence[str]) -> Counter[int]:
    return Counter(map(term_index, terms))


def _sparse(weights: dict[int, float]) -> Terms | None:
    indices = sorted(weights)
    return Terms(indices, [weights[index] for index in indices]) if indices else None
