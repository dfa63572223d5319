"""M3's lexical weights as langchain-qdrant takes them. Imports langchain-qdrant."""

from __future__ import annotations

from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector

from m3_retrievers.encoder.base import Encoder


class M3QdrantSparseEmbeddings(SparseEmbeddings):
    """Term weights as ``SparseVector``, for ``QdrantVectorStore(sparse_embedding=…)``."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Return one vector a text; a text without term weights gives an empty one."""
        encoded = self.encoder.encode_documents(texts, outputs=("sparse",))
        return encoded.to_sparse_vectors(SparseVector)

    def embed_query(self, text: str) -> SparseVector:
        """Return the vector of one query."""
        encoded = self.encoder.encode_query(text, outputs=("sparse",))
        vector: SparseVector = encoded.to_sparse_vectors(SparseVector)[0]
        return vector
