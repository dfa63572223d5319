"""Somebody else's embeddings as an encoder: dense alone, to stand beside other outputs.

Three interfaces are known by their methods, none is imported: LangChain's ``Embeddings``,
LlamaIndex's ``BaseEmbedding``, and sentence-transformers' models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import check_texts
from m3_retrievers.encoder.base import BaseEncoder
from m3_retrievers.encoder.distinct import distinct_texts
from m3_retrievers.errors import InputError, MissingHeadError
from m3_retrievers.types.plan import HybridWeights
from m3_retrievers.types.representations import Output, Representations
from m3_retrievers.types.tokens import TokenView

EmbedTexts: TypeAlias = Callable[[list[str]], Any]


class EmbeddingsEncoder(BaseEncoder):
    """Dense vectors of another library's model, brought to length 1.

    embeddings: has ``embed_documents`` and ``embed_query`` (LangChain),
    ``get_text_embedding_batch`` and ``get_query_embedding`` (LlamaIndex), or ``encode_document``
    and ``encode_query`` (sentence-transformers). name: None takes what it calls itself. The
    fingerprint is made of the name and the width alone: what is inside cannot be seen.

    Raises InputError for what has none of these methods.
    """

    def __init__(self, embeddings: Any, *, name: str | None = None) -> None:
        super().__init__(keep=None)
        found = _methods(embeddings)
        if found is None:
            raise InputError(
                "expected LangChain's Embeddings, LlamaIndex's BaseEmbedding or a "
                f"sentence-transformers model, got {type(embeddings).__name__}. Wrap it in a "
                "class with embed_documents(texts) and embed_query(text)."
            )
        self.embeddings = embeddings
        self._embed_queries, self._embed_documents = found
        self._name = name or _name_of(embeddings)

    @property
    def name(self) -> str:
        """What the model calls itself."""
        return self._name

    @property
    def outputs(self) -> tuple[Output, ...]:
        """``("dense",)``."""
        return ("dense",)

    @property
    def default_weights(self) -> HybridWeights:
        """The dense score alone."""
        return HybridWeights(dense=1, sparse=0, colbert=0)

    @cached_property
    def dimension(self) -> int:
        """Width h of the vectors, found by embedding one text."""
        return int(_rows(self._embed_documents(["a"]), 1, self.name).shape[1])

    @property
    def vocabulary_size(self) -> int:
        """Raise MissingHeadError: there are no term weights."""
        raise MissingHeadError(f"{self.name!r} makes no term weights, and has no vocabulary here.")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the name and the width."""
        return hashlib.sha256(f"{self.name}:{self.dimension}".encode()).hexdigest()

    def view(self, text: str, *, query: bool, output: Output | None = None) -> TokenView:  # noqa: ARG002
        """Return no tokens: other libraries' embeddings do not show them."""
        check_texts([text])
        return TokenView(())

    def terms(self, ids: Sequence[int]) -> list[str]:
        """Raise MissingHeadError: there are no term weights."""
        raise MissingHeadError(f"{self.name!r} makes no term weights, got columns {list(ids)[:3]}.")

    def _compute(
        self,
        texts: Sequence[str],
        *,
        query: bool,
        outputs: tuple[Output, ...],
        show_progress: bool,  # noqa: ARG002  (their own bars are theirs)
    ) -> Representations:
        if "tokens" in outputs:
            raise MissingHeadError(f"The output 'tokens' is not made by {self.name!r}.")
        if not texts:
            return Representations(dense=np.zeros((0, self.dimension), np.float32))
        different, rows = distinct_texts(texts)
        embed = self._embed_queries if query else self._embed_documents
        return Representations(dense=_rows(embed(different), len(different), self.name)[rows])


def _methods(embeddings: Any) -> tuple[EmbedTexts, EmbedTexts] | None:
    """Return what embeds queries and what embeds documents, a list at a time."""
    if isinstance(embeddings, type):
        return None
    if hasattr(embeddings, "embed_documents") and hasattr(embeddings, "embed_query"):
        one = embeddings.embed_query
        return lambda texts: [one(text) for text in texts], embeddings.embed_documents
    if hasattr(embeddings, "get_text_embedding_batch"):
        asked = embeddings.get_query_embedding
        return lambda texts: [asked(text) for text in texts], embeddings.get_text_embedding_batch
    if hasattr(embeddings, "encode_document") and hasattr(embeddings, "encode_query"):
        return embeddings.encode_query, embeddings.encode_document
    return None


def _rows(found: Any, count: int, name: str) -> NDArray[np.float32]:
    """Return (n, h) unit rows; InputError for what is no such matrix, NaN or infinity."""
    rows = np.asarray(found, np.float32)
    if rows.ndim != 2 or len(rows) != count or not np.isfinite(rows).all():
        raise InputError(
            f"expected {count} finite vectors of {name!r}, got an array of shape {rows.shape}. "
            "Check what its methods return."
        )
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.zeros_like(rows)
    np.divide(rows, lengths, out=unit, where=lengths > 0)
    return unit


def _name_of(embeddings: Any) -> str:
    for attribute in ("model_name", "model", "model_id"):
        value = getattr(embeddings, attribute, None)
        if isinstance(value, str) and value:
            return value
    return type(embeddings).__name__
