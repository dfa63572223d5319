"""A hybrid search whose legs show up in a trace as retriever runs of their own."""

from __future__ import annotations

from collections.abc import Mapping

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from pydantic import InstanceOf
from typing_extensions import override

from m3_retrievers.checks import check_k
from m3_retrievers.index.base import Filter
from m3_retrievers.langchain.checks import check_question
from m3_retrievers.langchain.documents import from_hit, from_ranking
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.types.hits import Ranking


class Leg(BaseRetriever):
    """What one leg recalled in a search that is over: the first documents of its ranking.

    The whole ranking is usually a hundred documents and would swamp a trace.
    """

    hybrid: InstanceOf[HybridRetriever]
    leg: str
    ranking: InstanceOf[Ranking]

    @override
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return from_ranking(self.hybrid.index, self.ranking, self.leg)

    @override
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        return await in_thread(from_ranking, self.hybrid.index, self.ranking, self.leg)


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
    found = hybrid.search_legs(query, k=k, filter=filter)
    for leg in _legs(hybrid, found.rankings, k=k):
        leg.invoke(query, {"callbacks": run_manager.get_child(leg.leg)})
    return [from_hit(hit) for hit in found.hits]


async def asearch(
    hybrid: HybridRetriever,
    query: str,
    *,
    k: int,
    filter: Filter | None,
    run_manager: AsyncCallbackManagerForRetrieverRun,
) -> list[Document]:
    """Return what ``search`` does; the work runs in a thread."""
    check_k(k)
    check_question(query)
    found = await in_thread(hybrid.search_legs, query, k=k, filter=filter)
    for leg in _legs(hybrid, found.rankings, k=k):
        await leg.ainvoke(query, {"callbacks": run_manager.get_child(leg.leg)})
    return [from_hit(hit) for hit in found.hits]


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


def _legs(hybrid: HybridRetriever, rankings: Mapping[str, Ranking], *, k: int) -> list[Leg]:
    return [
        Leg(name=leg, hybrid=hybrid, leg=leg, ranking=ranking.head(k))
        for leg, ranking in rankings.items()
    ]
