"""M3's lexical weights as langchain-milvus takes them. Imports langchain-milvus."""

from __future__ import annotations

from langchain_milvus.utils.sparse import BaseSparseEmbedding

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.frameworks.milvus import document_rows, query_rows


class M3MilvusSparseEmbeddings(BaseSparseEmbedding):
    """Term weights ``{vocabulary id: weight}``, recognised by ``Milvus`` as a sparse field.

    A text without term weights gets a stand-in that matches nothing: Milvus takes no empty row.

    langchain-milvus drops the smallest fifth of the weights unless told otherwise, and Milvus
    Lite refuses that; for exact scores give ``index_params={"index_type":
    "SPARSE_INVERTED_INDEX", "metric_type": "IP"}`` and ``search_params={"metric_type": "IP"}``.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Return one row a text."""
        return document_rows(self.encoder, texts)

    def embed_query(self, query: str) -> dict[int, float]:
        """Return the row of one query."""
        return query_rows(self.encoder, [query])[0]
