"""A hybrid search whose legs show up as retriever runs, with the query encoded once."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables import run_in_executor
from pydantic import InstanceOf
from typing_extensions import override

from m3_retrievers.checks import check_k
from m3_retrievers.index.base import Filter
from m3_retrievers.langchain.checks import check_question
from m3_retrievers.langchain.documents import from_hit, from_ranking
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Query, Ranking
from m3_retrievers.types.plan import Mode


class Leg(BaseRetriever):
    """One leg's recall for one query that is encoded already.

    The run reports the leg's best ``shown`` documents; ``ranking`` keeps the whole recall,
    which is usually a hundred documents and would swamp a trace.
    """

    hybrid: InstanceOf[HybridRetriever]
    asked: InstanceOf[Query]
    leg: Mode
    shown: int
    filter: Any = None
    ranking: InstanceOf[Ranking] | None = None

    @override
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        self.ranking = self.hybrid.recall_leg(self.asked, self.leg, filter=self.filter)
        return from_ranking(self.hybrid.index, self.ranking.head(self.shown), self.leg)


def search(
    hybrid: HybridRetriever,
    query: str,
    *,
    k: int,
    filter: Filter | None,
    run_manager: CallbackManagerForRetrieverRun,
) -> list[Document]:
    """Return the k best documents, scores in their metadata; each leg is a child run."""
    check_k(k)
    check_question(query)
    asked = hybrid.prepare(query)
    legs = _legs(hybrid, asked, k=k, filter=filter)
    for leg in legs:
        leg.invoke(query, {"callbacks": run_manager.get_child(leg.leg)})
    return _ranked(hybrid, asked, legs, k)


async def asearch(
    hybrid: HybridRetriever,
    query: str,
    *,
    k: int,
    filter: Filter | None,
    run_manager: AsyncCallbackManagerForRetrieverRun,
) -> list[Document]:
    """Return what ``search`` does; the work runs in threads, the legs side by side."""
    check_k(k)
    check_question(query)
    asked = await run_in_executor(None, hybrid.prepare, query)
    legs = _legs(hybrid, asked, k=k, filter=filter)
    runs = (leg.ainvoke(query, {"callbacks": run_manager.get_child(leg.leg)}) for leg in legs)
    await asyncio.gather(*runs)
    return await run_in_executor(None, _ranked, hybrid, asked, legs, k)


def ls_params(
    params: LangSmithRetrieverParams, hybrid: HybridRetriever
) -> LangSmithRetrieverParams:
    """Return a retriever's trace parameters with what M3's own index adds to them."""
    return LangSmithRetrieverParams(
        ls_retriever_name=params["ls_retriever_name"],
        ls_vector_store_provider=type(hybrid.index).__name__,
        ls_embedding_provider="m3_retrievers",
        ls_embedding_model=hybrid.encoder.name,
    )


def _legs(hybrid: HybridRetriever, asked: Query, *, k: int, filter: Filter | None) -> list[Leg]:
    return [
        Leg(name=leg, hybrid=hybrid, asked=asked, leg=leg, shown=k, filter=filter)
        for leg in hybrid.legs
    ]


def _ranked(hybrid: HybridRetriever, asked: Query, legs: list[Leg], k: int) -> list[Document]:
    rankings: dict[str, Ranking] = {leg.leg: leg.ranking for leg in legs if leg.ranking is not None}
    return [from_hit(hit) for hit in hybrid.rank(asked, rankings, k=k)]
