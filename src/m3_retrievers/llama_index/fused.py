"""LlamaIndex's retrievers run side by side and fused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from m3_retrievers.frameworks import fused
from m3_retrievers.frameworks.ensemble import by_name, check_filtered
from m3_retrievers.index.base import Filter
from m3_retrievers.llama_index.base import M3Retriever
from m3_retrievers.llama_index.nodes import scored, to_found
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.types.plan import Fusion


def fuse_all(
    retrievers: Sequence[BaseRetriever],
    query: QueryBundle,
    *,
    fusion: Fusion,
    id_key: str | None,
    filter: Filter | None,
) -> list[NodeWithScore]:
    """Return what all retrievers find, each node once, best first; see ``fused.fuse``."""
    named = by_name(retrievers)
    options = filtered(named, filter)
    # a copy for each: a vector retriever leaves its embedding in what it is given
    found = {name: one.retrieve(replace(query), **options) for name, one in named.items()}
    return _fused(found, fusion, id_key)


async def afuse_all(
    retrievers: Sequence[BaseRetriever],
    query: QueryBundle,
    *,
    fusion: Fusion,
    id_key: str | None,
    filter: Filter | None,
) -> list[NodeWithScore]:
    """Return what ``fuse_all`` does; the retrievers run side by side."""
    named = by_name(retrievers)
    options = filtered(named, filter)
    runs = (one.aretrieve(replace(query), **options) for one in named.values())
    found = dict(zip(named, await asyncio.gather(*runs), strict=True))
    return await in_thread(_fused, found, fusion, id_key)


def filtered(retrievers: Mapping[str, BaseRetriever], filter: Filter | None) -> dict[str, Any]:
    """Return what each ``retrieve`` is given to apply the filter; InputError if one takes none."""
    if not filter:
        return {}
    taking = {name: one for name, one in retrievers.items() if isinstance(one, M3Retriever)}
    check_filtered(retrievers, taking, option="filters")
    return {"filters": filter}


def _fused(
    found: Mapping[str, Sequence[NodeWithScore]], fusion: Fusion, id_key: str | None
) -> list[NodeWithScore]:
    answers = {name: [to_found(node) for node in one] for name, one in found.items()}
    return [
        scored(one.item, one.score, one.scores, "nested")
        for one in fused.fuse(answers, fusion, id_key=id_key)
    ]
