"""M3's lexical weights as a LlamaIndex sparse embedding, and for its Milvus and Qdrant stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding
from llama_index.core.bridge.pydantic import Field
from pydantic import ConfigDict, model_validator

from m3_retrievers.checks import require_package
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.frameworks.fields import Checked, EncoderField
from m3_retrievers.habits import guided
from m3_retrievers.llama_index.milvus import M3MilvusSparseFunction
from m3_retrievers.llama_index.qdrant import M3QdrantSparseFunctions
from m3_retrievers.retrieval.threads import in_thread


@guided(embed_query="get_query_embedding(text)")
class M3SparseEmbedding(Checked, BaseSparseEmbedding):
    """Term weights ``{vocabulary id: weight}``; a text without any gives ``{}``.

    ``similarity`` is the plain inner product that M3 is trained for, not the base class's
    cosine. The async methods run in a thread, and concurrent queries share a forward pass.
    ``for_milvus()`` and ``for_qdrant()`` give LlamaIndex's bindings what each of them takes.

    encoder: the model, or its name. Raises MissingHeadError at the first call if the model has
    no sparse head.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    encoder: EncoderField = Field(exclude=True)
    embed_batch_size: int = Field(default=256, gt=0, le=2048)

    def __init__(self, encoder: Encoder | str | Path, **options: Any) -> None:
        super().__init__(encoder=encoder, **options)

    @model_validator(mode="after")
    def _take_name(self) -> Self:
        if "model_name" not in self.model_fields_set:
            # past the check of what is set, which would come here again
            self.__dict__["model_name"] = self.encoder.name
        return self

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes down for this class."""
        return "M3SparseEmbedding"

    def similarity(self, embedding1: dict[int, float], embedding2: dict[int, float]) -> float:
        """Return the sum of products over the shared terms."""
        return sum(embedding1[term] * embedding2[term] for term in embedding1.keys() & embedding2)

    def for_milvus(self) -> M3MilvusSparseFunction:
        """Return ``MilvusVectorStore(sparse_embedding_function=…)``'s argument.

        Raises MissingExtraError where llama-index-vector-stores-milvus is not installed.
        """
        require_package(
            "llama-index-vector-stores-milvus",
            module="llama_index.vector_stores.milvus",
            extra="llama-index-milvus",
            purpose="M3SparseEmbedding.for_milvus()",
        )
        from llama_index.vector_stores.milvus.utils import BaseSparseEmbeddingFunction

        BaseSparseEmbeddingFunction.register(M3MilvusSparseFunction)
        return M3MilvusSparseFunction(self.encoder)

    def for_qdrant(self) -> M3QdrantSparseFunctions:
        """Return the two functions that ``QdrantVectorStore`` takes."""
        return M3QdrantSparseFunctions(self.encoder)

    def _get_query_embedding(self, query: str) -> dict[int, float]:
        return self.encoder.encode_query(query, outputs=("sparse",)).to_dicts()[0]

    async def _aget_query_embedding(self, query: str) -> dict[int, float]:
        return await in_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> dict[int, float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> dict[int, float]:
        return await in_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[dict[int, float]]:
        return self.encoder.encode_documents(texts, outputs=("sparse",)).to_dicts()

    async def _aget_text_embeddings(self, texts: list[str]) -> list[dict[int, float]]:
        return await in_thread(self._get_text_embeddings, texts)
