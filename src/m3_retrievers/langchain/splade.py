"""Lexical retrieval by a SPLADE model's term weights."""

from __future__ import annotations

from m3_retrievers.frameworks.fields import SpladeField
from m3_retrievers.langchain.lexical import M3SparseRetriever


class SpladeRetriever(M3SparseRetriever):
    """Retrieval by a SPLADE model's terms, also those that a text does not hold.

    encoder: a ``SpladeEncoder``, or the name of a masked-language model that becomes one; all
    else as for ``M3SparseRetriever``.
    """

    encoder: SpladeField
