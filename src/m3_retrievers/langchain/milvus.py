"""M3's lexical weights as langchain-milvus takes them. Imports langchain-milvus."""

from __future__ import annotations

from langchain_milvus.utils.sparse import BaseSparseEmbedding

from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.langchain.sparse import M3SparseEmbeddings

# Milvus refuses a row without entries (Milvus Lite 3.2: "at least one nonzero float32 weight").
# A product of two such weights is 0 in float32, and no score can notice it beside another.
_ALMOST_NOTHING = 1e-30


class M3MilvusSparseEmbeddings(BaseSparseEmbedding):
    """Term weights ``{vocabulary id: weight}``, recognised by ``Milvus`` as a sparse field.

    A text without term weights gets a stand-in: a weight of 1e-30 on a special token that no
    other text can have, one for documents and another for queries, so they never match.

    langchain-milvus drops the smallest fifth of the weights unless told otherwise, and Milvus
    Lite refuses that; for exact scores give ``index_params={"index_type":
    "SPARSE_INVERTED_INDEX", "metric_type": "IP"}`` and ``search_params={"metric_type": "IP"}``.
    """

    def __init__(self, encoder: M3Encoder) -> None:
        self._rows = M3SparseEmbeddings(encoder)

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Return one row a text."""
        for_documents = self._rows.encoder.checkpoint.dropped_ids[0]
        rows = self._rows.embed_documents(texts)
        return [row or {for_documents: _ALMOST_NOTHING} for row in rows]

    def embed_query(self, query: str) -> dict[int, float]:
        """Return the row of one query."""
        for_queries = self._rows.encoder.checkpoint.dropped_ids[-1]
        return self._rows.embed_query(query) or {for_queries: _ALMOST_NOTHING}
