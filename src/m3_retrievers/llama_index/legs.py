"""A hybrid search whose legs show up as retrievals of their own."""

from __future__ import annotations

from collections.abc import Mapping

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle

from m3_retrievers.index.base import Filter
from m3_retrievers.llama_index.nodes import from_hit, from_ranking
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.types.hits import Query, Ranking


class Leg(BaseRetriever):
    """What one leg recalled in a search that is over: the first nodes of its ranking.

    The whole ranking is usually a hundred nodes and would swamp a trace.
    """

    def __init__(
        self,
        hybrid: HybridRetriever,
        leg: str,
        ranking: Ranking,
        *,
        callback_manager: CallbackManager,
    ) -> None:
        self.hybrid = hybrid
        self.leg = leg
        self.ranking = ranking
        super().__init__(callback_manager=callback_manager)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:  # noqa: ARG002
        return from_ranking(self.hybrid.index, self.ranking, self.leg)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await in_thread(self._retrieve, query_bundle)


def search(
    hybrid: HybridRetriever,
    query: str | Query,
    *,
    k: int,
    filter: Filter | None,
    callback_manager: CallbackManager,
) -> list[NodeWithScore]:
    """Return the k best nodes with their scores; each leg is a retrieval of its own."""
    found = hybrid.search_legs(query, k=k, filter=filter)
    for leg in _legs(hybrid, found.rankings, k=k, callback_manager=callback_manager):
        leg.retrieve(_text(query))
    return [from_hit(hit) for hit in found.hits]


async def asearch(
    hybrid: HybridRetriever,
    query: str | Query,
    *,
    k: int,
    filter: Filter | None,
    callback_manager: CallbackManager,
) -> list[NodeWithScore]:
    """Return what ``search`` does; the work runs in a thread."""
    found = await in_thread(hybrid.search_legs, query, k=k, filter=filter)
    for leg in _legs(hybrid, found.rankings, k=k, callback_manager=callback_manager):
        await leg.aretrieve(_text(query))
    return [from_hit(hit) for hit in found.hits]


def _legs(
    hybrid: HybridRetriever,
    rankings: Mapping[str, Ranking],
    *,
    k: int,
    callback_manager: CallbackManager,
) -> list[Leg]:
    return [
        Leg(hybrid, leg, ranking.head(k), callback_manager=callback_manager)
        for leg, ranking in rankings.items()
    ]


def _text(query: str | Query) -> str:
    return query.text if isinstance(query, Query) else query
