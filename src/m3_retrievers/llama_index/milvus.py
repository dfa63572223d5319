"""M3's lexical weights as llama-index-vector-stores-milvus takes them; imports nothing of it."""

from __future__ import annotations

import asyncio

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.frameworks.milvus import document_rows, query_rows


class M3MilvusSparseFunction:
    """Term weights ``{vocabulary id: weight}``, for ``MilvusVectorStore(enable_sparse=True)``.

    Made by ``M3SparseEmbedding.for_milvus()``, which registers it with the binding's base class.

    A text without term weights gets a stand-in that matches nothing: Milvus takes no empty row.

    The binding hands over a node's own text, without metadata, and one node a call. Its hybrid
    mode scores with all weights; its sparse mode drops the smallest fifth of the query's
    (binding 1.2 has no option for it), and Milvus Lite refuses that.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        """Return one row a text."""
        return document_rows(self.encoder, documents)

    def encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        """Return one row a query."""
        return query_rows(self.encoder, queries)

    async def async_encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        """Return one row a text, computed in a thread."""
        return await asyncio.to_thread(self.encode_documents, documents)

    async def async_encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        """Return one row a query, computed in a thread."""
        return await asyncio.to_thread(self.encode_queries, queries)
