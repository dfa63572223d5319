"""M3's lexical weights as llama-index-vector-stores-qdrant takes them; imports nothing of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from m3_retrievers.encoder.base import Encoder

Rows: TypeAlias = tuple[list[list[int]], list[list[float]]]


@dataclass(frozen=True, slots=True)
class M3QdrantSparseFunctions:
    """``QdrantVectorStore``'s ``sparse_doc_fn`` and ``sparse_query_fn``: two methods of one model.

    Each returns all ids and all weights, a list a text; a text without term weights gives
    empty ones.
    """

    encoder: Encoder

    def documents(self, texts: list[str]) -> Rows:
        """Return the rows of documents."""
        return self.encoder.encode_documents(texts, outputs=("sparse",)).to_lists()

    def queries(self, texts: list[str]) -> Rows:
        """Return the rows of queries."""
        return self.encoder.encode_queries(texts, outputs=("sparse",)).to_lists()
