"""The FLOPS losses, which keep SPLADE's terms few (Paria et al., arXiv 2004.05665)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from m3_retrievers.training.prior import distinct_ids, inverse_frequencies
from m3_retrievers.training.similarity import Terms

# A stop word's frequency may come near 0, and what is divided by it would outweigh any other
# term; this is the inverse frequency of a term that stands in three of five passages.
_LEAST_IDF = 0.5


def flops_loss(terms: Terms, count: int, scale: Tensor) -> Tensor:
    """Return Σ_t (scale_t · the mean weight of term t over the texts)².

    terms: each at most once a text. count: of texts, those without a term among them. scale: (v,)
    by vocabulary id; ones are SPLADE's own form (arXiv 2107.05720, section 3.2).

    >>> ids, rows = torch.tensor([0, 0, 2]), torch.tensor([0, 1, 1])
    >>> terms = Terms(torch.tensor([2.0, 4.0, 1.0]), ids, rows)
    >>> float(flops_loss(terms, 2, torch.ones(3)))  # ((2 + 4) / 2)² + (1 / 2)²
    9.25
    """
    totals = terms.weights.new_zeros(len(scale)).index_add(0, terms.ids, terms.weights)
    return (scale * totals / count).square().sum()


def ramp(done: int, *, steps: float) -> float:
    """Return the share of a FLOPS loss after ``done`` steps: rising with their square, then 1.

    >>> [ramp(done, steps=4) for done in (0, 2, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """
    return 1.0 if done >= steps else float((done / steps) ** 2)


def idf_table(texts: Iterable[str], tokenizer: Any, *, vocabulary_size: int) -> Tensor:
    """Return (v,) the inverse document frequency of each vocabulary id, each text counted once.

    BM25's, as OpenSearch's tables have it: log(1 + (n − f + ½) / (f + ½)) for f of n texts.
    """
    counted = distinct_ids(texts, tokenizer)
    idf = inverse_frequencies(counted, vocabulary_size=vocabulary_size)
    return torch.tensor(idf, dtype=torch.float32)


def idf_scale(idf: Tensor) -> Tensor:
    """Return (v,) what a term's mean weight is multiplied by in the IDF-aware FLOPS loss, 1 / idf.

    Inner products with queries weighed by idf, under a plain FLOPS loss, are the same in other
    units: a document's weight is idf times smaller there (arXiv 2411.04403, versions 1 and 2).
    """
    return 1 / idf.clamp(min=_LEAST_IDF)
