"""What explaining needs to know of an index: its BM25, and how it keeps token vectors."""

from __future__ import annotations

from m3_retrievers.index.base import Index
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.types.packed import MultiVectors


def bm25_of(index: Index) -> BM25 | None:
    """Return the BM25 an index scores with, None where it has none or keeps it elsewhere."""
    weighting = index.weighting if isinstance(index, LocalIndex) else None
    return weighting if isinstance(weighting, BM25) else None


def as_stored(vectors: MultiVectors, index: Index) -> MultiVectors:
    """Return token vectors with the index's precision, so that they score as its own do."""
    if not isinstance(index, LocalIndex) or "colbert" not in index.modes:
        return vectors
    return vectors.astype(index.colbert_dtype)
