"""Where a store is kept among LlamaIndex's files, and what stands in the file LlamaIndex reads."""

from __future__ import annotations

import json
from pathlib import Path

from m3_retrievers.index.base import PersistentIndex
from m3_retrievers.retrieval.retriever import HybridRetriever

_SUFFIX = ".m3"
_HOW = (
    "this file stands for an M3VectorStore. Read it back with StorageContext.from_defaults("
    "persist_dir=…, vector_store=M3VectorStore.from_persist_dir(…, encoder=…))."
)


def write(hybrid: HybridRetriever, path: str | Path) -> None:
    """Write a store to the folder of this path; a .json file of LlamaIndex's says how to read it.

    ``StorageContext.from_defaults(persist_dir=…)`` alone reads every such file as a store of
    LlamaIndex's own. Finding a text where a number should be, it stops with an error that
    quotes the text. A durable index has everything already, so nothing is written for it.
    """
    if isinstance(hybrid.index, PersistentIndex):
        return
    folder = folder_of(path)
    hybrid.save(folder)
    if folder != Path(path):
        Path(path).write_text(json.dumps({"embedding_dict": {"": [_HOW]}}), encoding="utf-8")


def folder_of(path: str | Path) -> Path:
    """Return the folder of a store: the path itself, or beside a .json file as LlamaIndex names."""
    return Path(f"{path}{_SUFFIX}") if Path(path).suffix == ".json" else Path(path)
