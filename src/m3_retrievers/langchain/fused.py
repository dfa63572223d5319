"""LangChain's retrievers run side by side and fused, each of them a child run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import RetrieverLike

from m3_retrievers.frameworks import fused
from m3_retrievers.frameworks.ensemble import by_name
from m3_retrievers.index.base import Filter
from m3_retrievers.langchain.checks import check_answers
from m3_retrievers.langchain.documents import scored, to_found
from m3_retrievers.langchain.filtering import filtered
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.types.plan import Fusion


def fuse_all(
    retrievers: Sequence[RetrieverLike],
    query: str,
    *,
    fusion: Fusion,
    id_key: str | None,
    filter: Filter | None,
    run_manager: CallbackManagerForRetrieverRun,
) -> list[Document]:
    """Return what all retrievers find, each document once, best first; see ``fused.fuse``."""
    named = by_name(retrievers)
    options = filtered(named, filter)
    found = {
        name: one.invoke(query, {"callbacks": run_manager.get_child(name)}, **options[name])
        for name, one in named.items()
    }
    return _fused(found, fusion, id_key)


async def afuse_all(
    retrievers: Sequence[RetrieverLike],
    query: str,
    *,
    fusion: Fusion,
    id_key: str | None,
    filter: Filter | None,
    run_manager: AsyncCallbackManagerForRetrieverRun,
) -> list[Document]:
    """Return what ``fuse_all`` does; the retrievers run side by side."""
    named = by_name(retrievers)
    options = filtered(named, filter)
    runs = [
        one.ainvoke(query, {"callbacks": run_manager.get_child(name)}, **options[name])
        for name, one in named.items()
    ]
    found = dict(zip(named, await asyncio.gather(*runs), strict=True))
    return await in_thread(_fused, found, fusion, id_key)


def _fused(
    found: Mapping[str, Sequence[Document]], fusion: Fusion, id_key: str | None
) -> list[Document]:
    answers = {
        name: [to_found(document) for document in check_answers(one, name)]
        for name, one in found.items()
    }
    return [
        scored(one.item, one.scores, "nested") for one in fused.fuse(answers, fusion, id_key=id_key)
    ]
