"""M3's lexical weights as llama-index-vector-stores-milvus takes them; imports nothing of it."""

from __future__ import annotations

import asyncio

from m3_retrievers.encoder.encoder import M3Encoder

# Milvus refuses a row without entries (Milvus Lite 3.2: "at least one nonzero float32 weight").
# A product of two such weights is 0 in float32, and no score can notice it beside another.
_ALMOST_NOTHING = 1e-30


class M3MilvusSparseFunction:
    """Term weights ``{vocabulary id: weight}``, for ``MilvusVectorStore(enable_sparse=True)``.

    Made by ``M3SparseEmbedding.for_milvus()``, which registers it with the binding's base class.

    A text without term weights gets a stand-in: a weight of 1e-30 on a special token that no
    other text can have, one for documents and another for queries, so they never match.

    The binding hands over a node's own text, without metadata, and one node a call. Its hybrid
    mode scores with all weights; its sparse mode drops the smallest fifth of the query's
    (binding 1.2 has no option for it), and Milvus Lite refuses that.
    """

    def __init__(self, encoder: M3Encoder) -> None:
        self.encoder = encoder

    def encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        """Return one row a text."""
        stand_in = {self.encoder.checkpoint.dropped_ids[0]: _ALMOST_NOTHING}
        rows = self.encoder.encode_documents(documents, outputs=("sparse",)).to_dicts()
        return [row or stand_in for row in rows]

    def encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        """Return one row a query."""
        stand_in = {self.encoder.checkpoint.dropped_ids[-1]: _ALMOST_NOTHING}
        rows = self.encoder.encode_queries(queries, outputs=("sparse",)).to_dicts()
        return [row or stand_in for row in rows]

    async def async_encode_documents(self, documents: list[str]) -> list[dict[int, float]]:
        """Return one row a text, computed in a thread."""
        return await asyncio.to_thread(self.encode_documents, documents)

    async def async_encode_queries(self, queries: list[str]) -> list[dict[int, float]]:
        """Return one row a query, computed in a thread."""
        return await asyncio.to_thread(self.encode_queries, queries)
