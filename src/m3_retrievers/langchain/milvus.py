"""M3's lexical weights as langchain-milvus takes them. Imports langchain-milvus."""

from __future__ import annotations

from langchain_milvus.utils.sparse import BaseSparseEmbedding

from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.langchain.sparse import M3SparseEmbeddings


class M3MilvusSparseEmbeddings(BaseSparseEmbedding):
    """Term weights ``{vocabulary id: weight}``, recognised by ``Milvus`` as a sparse field.

    Milvus drops the smallest weights when it builds the index by default; for exact scores
    give ``index_params`` with ``"drop_ratio_build": 0.0`` and the metric ``"IP"``.
    """

    def __init__(self, encoder: M3Encoder) -> None:
        self._rows = M3SparseEmbeddings(encoder)

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Return one row a text."""
        return self._rows.embed_documents(texts)

    def embed_query(self, query: str) -> dict[int, float]:
        """Return the row of one query."""
        return self._rows.embed_query(query)
