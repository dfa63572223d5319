"""M3's lexical weights as sparse embeddings, for LangChain's Milvus and Qdrant stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from m3_retrievers.checks import require_package
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.choose import as_encoder
from m3_retrievers.habits import guided
from m3_retrievers.retrieval.threads import in_thread

if TYPE_CHECKING:
    from m3_retrievers.langchain.milvus import M3MilvusSparseEmbeddings
    from m3_retrievers.langchain.qdrant import M3QdrantSparseEmbeddings


@guided()
class M3SparseEmbeddings:
    """Term weights ``{vocabulary id: weight}``; a text without any gives ``{}``.

    langchain-milvus and langchain-qdrant each accept only subclasses of their own base, and
    disagree about what the same methods return: ``for_milvus()`` and ``for_qdrant()`` give
    each the class it wants. encoder: the model, or its name.

    Raises MissingHeadError at the first call if the model has no sparse head.
    """

    def __init__(self, encoder: Encoder | str | Path) -> None:
        self.encoder = as_encoder(encoder)

    def __repr__(self) -> str:
        return f"M3SparseEmbeddings({self.encoder!r})"

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Return one row a text."""
        return self.encoder.encode_documents(texts, outputs=("sparse",)).to_dicts()

    def embed_query(self, text: str) -> dict[int, float]:
        """Return the row of one query."""
        return self.encoder.encode_query(text, outputs=("sparse",)).to_dicts()[0]

    async def aembed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Return one row a text, computed in a thread."""
        return await in_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> dict[int, float]:
        """Return the row of one query, computed in a thread."""
        return await in_thread(self.embed_query, text)

    def for_milvus(self) -> M3MilvusSparseEmbeddings:
        """Return these embeddings as langchain-milvus takes them.

        Raises MissingExtraError where langchain-milvus is not installed.
        """
        _require("milvus")
        from m3_retrievers.langchain.milvus import M3MilvusSparseEmbeddings

        return M3MilvusSparseEmbeddings(self.encoder)

    def for_qdrant(self) -> M3QdrantSparseEmbeddings:
        """Return these embeddings as langchain-qdrant takes them.

        Raises MissingExtraError where langchain-qdrant is not installed.
        """
        _require("qdrant")
        from m3_retrievers.langchain.qdrant import M3QdrantSparseEmbeddings

        return M3QdrantSparseEmbeddings(self.encoder)


def _require(store: str) -> None:
    require_package(
        f"langchain-{store}",
        module=f"langchain_{store}",
        extra=f"langchain-{store}",
        purpose=f"M3SparseEmbeddings.for_{store}()",
    )
