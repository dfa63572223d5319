"""Stores that open a durable index, the same in both frameworks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, Unpack

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.frameworks.options import HybridOptions, opened_retriever
from m3_retrievers.index.base import Index


class Opens:
    """A class that is made of one HybridRetriever."""

    @classmethod
    def open(
        cls,
        path: str | Path | Index,
        encoder: Encoder | str | Path,
        **options: Unpack[HybridOptions],
    ) -> Self:
        """Return a store whose every change is on the disk when it returns.

        path: of the file, made if missing, or an index that persists by itself. encoder: the
        model, its name, or embeddings of it. options: legs, recall, fusion, weights, bm25,
        tokenizer, which are kept beside the index; see ``HybridRetriever.open``.
        """
        make: Callable[[Any], Self] = cls
        return make(opened_retriever(path, encoder, options=options, method=cls.open))
