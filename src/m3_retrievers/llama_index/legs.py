"""A hybrid search whose legs show up as retrievals of their own, with the query encoded once."""

from __future__ import annotations

import asyncio

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle

from m3_retrievers.index.base import Filter
from m3_retrievers.llama_index.nodes import ScoredNode, from_hit, from_ranking
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Query, Ranking
from m3_retrievers.types.plan import Mode


class Leg(BaseRetriever):
    """One leg's recall for one query that is encoded already.

    The events report the leg's best ``shown`` nodes; ``ranking`` keeps the whole recall,
    which is usually a hundred nodes and would swamp a trace.
    """

    def __init__(
        self,
        hybrid: HybridRetriever,
        asked: Query,
        leg: Mode,
        *,
        shown: int,
        filter: Filter | None,
        callback_manager: CallbackManager,
    ) -> None:
        self.hybrid = hybrid
        self.asked = asked
        self.leg = leg
        self.shown = shown
        self.filter = filter
        self.ranking: Ranking | None = None
        super().__init__(callback_manager=callback_manager)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:  # noqa: ARG002
        self.ranking = self.hybrid.recall_leg(self.asked, self.leg, filter=self.filter)
        return [*from_ranking(self.hybrid.index, self.ranking.head(self.shown), self.leg)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def search(
    hybrid: HybridRetriever,
    query: str,
    *,
    k: int,
    filter: Filter | None,
    callback_manager: CallbackManager,
) -> list[ScoredNode]:
    """Return the k best nodes with their scores; each leg is a retrieval of its own."""
    asked = hybrid.prepare(query)
    legs = _legs(hybrid, asked, k=k, filter=filter, callback_manager=callback_manager)
    for leg in legs:
        leg.retrieve(query)
    return _ranked(hybrid, asked, legs, k)


async def asearch(
    hybrid: HybridRetriever,
    query: str,
    *,
    k: int,
    filter: Filter | None,
    callback_manager: CallbackManager,
) -> list[ScoredNode]:
    """Return what ``search`` does; the work runs in threads, the legs side by side."""
    asked = await asyncio.to_thread(hybrid.prepare, query)
    legs = _legs(hybrid, asked, k=k, filter=filter, callback_manager=callback_manager)
    await asyncio.gather(*(leg.aretrieve(query) for leg in legs))
    return await asyncio.to_thread(_ranked, hybrid, asked, legs, k)


def _legs(
    hybrid: HybridRetriever,
    asked: Query,
    *,
    k: int,
    filter: Filter | None,
    callback_manager: CallbackManager,
) -> list[Leg]:
    return [
        Leg(hybrid, asked, leg, shown=k, filter=filter, callback_manager=callback_manager)
        for leg in hybrid.legs
    ]


def _ranked(hybrid: HybridRetriever, asked: Query, legs: list[Leg], k: int) -> list[ScoredNode]:
    rankings: dict[str, Ranking] = {leg.leg: leg.ranking for leg in legs if leg.ranking is not None}
    return [from_hit(hit) for hit in hybrid.rank(asked, rankings, k=k)]
