"""M3's dense vectors as LangChain embeddings."""

from __future__ import annotations

from pathlib import Path

from langchain_core.embeddings import Embeddings

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.choose import as_encoder
from m3_retrievers.frameworks.vectors import unit_rows
from m3_retrievers.habits import guided
from m3_retrievers.langchain import names
from m3_retrievers.retrieval.threads import in_thread


@guided(**names.OF_EMBEDDINGS)
class M3Embeddings(Embeddings):
    """Dense vectors of length 1 for any LangChain vector store: compare by inner product.

    encoder: the model, or its name. The async methods run in a thread, and concurrent queries
    share a forward pass.
    """

    def __init__(self, encoder: Encoder | str | Path) -> None:
        self.encoder = as_encoder(encoder)

    def __repr__(self) -> str:
        return f"M3Embeddings({self.encoder!r})"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector a text."""
        encoded = self.encoder.encode_documents(texts, outputs=("dense",))
        return unit_rows(encoded.require("dense"), query=False)

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of one query."""
        encoded = self.encoder.encode_query(text, outputs=("dense",))
        return unit_rows(encoded.require("dense"), query=True)[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector a text, computed in a thread."""
        return await in_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of one query, computed in a thread."""
        return await in_thread(self.embed_query, text)
