"""Lexical retrieval by a SPLADE model's term weights."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.choose import as_splade
from m3_retrievers.index.base import Index
from m3_retrievers.llama_index.base import RetrieverOptions
from m3_retrievers.llama_index.lexical import M3SparseRetriever


class SpladeRetriever(M3SparseRetriever):
    """Retrieval by a SPLADE model's terms, also those that a text does not hold.

    encoder: a ``SpladeEncoder``, or the name of a masked-language model that becomes one; all
    else as for ``M3SparseRetriever``.
    """

    def __init__(
        self, index: Index, encoder: Encoder | str | Path, **options: Unpack[RetrieverOptions]
    ) -> None:
        super().__init__(index, as_splade(encoder), **options)
