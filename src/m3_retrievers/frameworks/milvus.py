"""Sparse rows as Milvus takes them, in either framework."""

from __future__ import annotations

from collections.abc import Sequence

from m3_retrievers.encoder.base import Encoder

# Milvus refuses a row without entries (Milvus Lite 3.2: "at least one nonzero float32 weight").
# A product of two such weights is 0 in float32, and no score can notice it beside another.
_ALMOST_NOTHING = 1e-30


def document_rows(encoder: Encoder, texts: Sequence[str]) -> list[dict[int, float]]:
    """Return term weights ``{vocabulary id: weight}``, one row a text, none of them empty.

    A text without term weights gets a stand-in: a weight of 1e-30 in a column behind the
    vocabulary, one for documents and another for queries, so they never match.
    """
    stand_in = encoder.vocabulary_size
    rows = encoder.encode_documents(texts, outputs=("sparse",)).to_dicts()
    return [row or {stand_in: _ALMOST_NOTHING} for row in rows]


def query_rows(encoder: Encoder, texts: Sequence[str]) -> list[dict[int, float]]:
    """Return the rows of queries; see ``document_rows``."""
    stand_in = encoder.vocabulary_size + 1
    rows = encoder.encode_queries(texts, outputs=("sparse",)).to_dicts()
    return [row or {stand_in: _ALMOST_NOTHING} for row in rows]
