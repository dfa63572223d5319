"""Sparse rows as Milvus takes them, in either framework."""

from __future__ import annotations

from collections.abc import Sequence

from m3_retrievers.encoder.encoder import M3Encoder

# Milvus refuses a row without entries (Milvus Lite 3.2: "at least one nonzero float32 weight").
# A product of two such weights is 0 in float32, and no score can notice it beside another.
_ALMOST_NOTHING = 1e-30


def document_rows(encoder: M3Encoder, texts: Sequence[str]) -> list[dict[int, float]]:
    """Return term weights ``{vocabulary id: weight}``, one row a text, none of them empty.

    A text without term weights gets a stand-in: a weight of 1e-30 on a special token that no
    other text can have, one for documents and another for queries, so they never match.
    """
    stand_in = encoder.checkpoint.dropped_ids[0]
    rows = encoder.encode_documents(texts, outputs=("sparse",)).to_dicts()
    return [row or {stand_in: _ALMOST_NOTHING} for row in rows]


def query_rows(encoder: M3Encoder, texts: Sequence[str]) -> list[dict[int, float]]:
    """Return the rows of queries; see ``document_rows``."""
    stand_in = encoder.checkpoint.dropped_ids[-1]
    rows = encoder.encode_queries(texts, outputs=("sparse",)).to_dicts()
    return [row or {stand_in: _ALMOST_NOTHING} for row in rows]
