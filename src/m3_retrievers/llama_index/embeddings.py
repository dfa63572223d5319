"""M3's dense vectors as a LlamaIndex embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field
from pydantic import computed_field, model_validator

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.choose import settings_of
from m3_retrievers.frameworks.fields import EncoderField
from m3_retrievers.frameworks.vectors import unit_rows
from m3_retrievers.habits import guided
from m3_retrievers.llama_index import names
from m3_retrievers.llama_index.component import StrictComponent
from m3_retrievers.retrieval.threads import in_thread


@guided(**names.OF_EMBEDDING)
class M3Embedding(StrictComponent, BaseEmbedding):
    """Dense vectors of length 1, for any LlamaIndex index or vector store.

    encoder: the model, or its name. embed_batch_size: texts of a call, 1 to 2048; the encoder
    sorts them by length and makes its own batches. The async methods run in a thread, and
    concurrent queries share a forward pass.
    """

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

    @computed_field
    def settings(self) -> dict[str, Any]:
        """Return the encoder's settings: an ingestion cache tells embeddings apart by them."""
        return settings_of(self.encoder)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes down for this class."""
        return "M3Embedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        encoded = self.encoder.encode_query(query, outputs=("dense",))
        return unit_rows(encoded.require("dense"), query=True)[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await in_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await in_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        encoded = self.encoder.encode_documents(texts, outputs=("dense",))
        return unit_rows(encoded.require("dense"), query=False)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await in_thread(self._get_text_embeddings, texts)
