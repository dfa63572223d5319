"""M3EnsembleRetriever: recall, fuse, reorder, inside a LlamaIndex query engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle

from m3_retrievers.checks import check_k
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.frameworks.ensemble import FOREIGN_FUSION, check_doors, named_legs
from m3_retrievers.index.base import Index
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.llama_index.filters import Filters, to_filter
from m3_retrievers.llama_index.fused import fuse
from m3_retrievers.llama_index.legs import asearch, search
from m3_retrievers.llama_index.nodes import records_of
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.plan import DEFAULT_LEGS, Fusion, HybridWeights, Mode, Recall


class M3EnsembleRetriever(BaseRetriever):
    """Hybrid retrieval behind LlamaIndex's retriever interface; two doors lead to it.

    ``from_nodes``, ``from_index``, or ``M3EnsembleRetriever(HybridRetriever(…))``: all legs
    read one index, and the query is encoded once. filters: LlamaIndex's MetadataFilters, or a
    mapping in the core's language; they apply before each leg's top k.

    ``retrievers=[…]``: retrievers of any kind are run as they are and their nodes fused
    (``fusion``, RRF unless another is given), then reordered by ``reranker`` if there is one.
    Each leg returns as many nodes as it is set up to, through filters of its own; give it
    more than k. id_key: a metadata entry that identifies nodes, where the legs' nodes have
    neither ids nor metadata in common.

    k: how many nodes to return. Every node returned is a copy, and its ``metadata["scores"]``
    says how it got there: each mode's own score and ``hybrid``, or ``fusion``. Each leg shows
    up as a retrieval of its own. No language model is involved.
    """

    def __init__(
        self,
        hybrid: HybridRetriever | None = None,
        *,
        retrievers: Sequence[BaseRetriever] | None = None,
        reranker: BaseNodePostprocessor | None = None,
        fusion: Fusion | None = None,
        id_key: str | None = None,
        filters: Filters = None,
        k: int = 4,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
    ) -> None:
        check_doors(
            hybrid,
            retrievers,
            first="a HybridRetriever",
            made_by="from_nodes",
            foreign_only={"reranker": reranker, "fusion": fusion, "id_key": id_key},
        )
        if hybrid is not None and not isinstance(hybrid, HybridRetriever):
            raise InputError(
                f"M3EnsembleRetriever expects a HybridRetriever, got {hybrid!r:.80}. Give "
                "retrievers as retrievers=[…]; an M3VectorStore has one under .hybrid."
            )
        for leg in retrievers or ():
            if not isinstance(leg, BaseRetriever):
                raise InputError(
                    f"retrievers expects LlamaIndex retrievers, got {leg!r:.80}. Of an index take "
                    ".as_retriever()."
                )
        if hybrid is None and filters is not None:
            raise InputError(
                "filters expects a HybridRetriever, got retrievers=. Give each retriever its own "
                "filters, which it applies before it takes its best."
            )
        check_k(k)
        self.hybrid = hybrid
        self.retrievers = list(retrievers or ())
        self.reranker = reranker
        self.fusion = fusion or FOREIGN_FUSION
        self.id_key = id_key
        self.k = k
        self._filter = to_filter(filters)
        compile_filter(self._filter)  # what is wrong with it shows now, not at the first question
        super().__init__(callback_manager=callback_manager, verbose=verbose)

    def __repr__(self) -> str:
        inside = self.retrievers if self.hybrid is None else self.hybrid
        return f"M3EnsembleRetriever({inside!r}, k={self.k})"

    @classmethod
    def from_nodes(
        cls,
        nodes: Iterable[BaseNode],
        *,
        encoder: M3Encoder,
        k: int = 4,
        legs: Sequence[Mode] = DEFAULT_LEGS,
        recall: Recall | None = None,
        fusion: Fusion | None = None,
        weights: HybridWeights | None = None,
        filters: Filters = None,
        callback_manager: CallbackManager | None = None,
        show_progress: bool = False,
    ) -> M3EnsembleRetriever:
        """Return a retriever over a new index of the nodes (documents are nodes too).

        legs, recall, fusion, weights: as for ``HybridRetriever``. Raises DuplicateIdError for
        an id given twice.
        """
        check_k(k)
        hybrid = HybridRetriever(encoder, legs=legs, recall=recall, fusion=fusion, weights=weights)
        hybrid.upsert(records_of(nodes), show_progress=show_progress)
        return cls(hybrid, k=k, filters=filters, callback_manager=callback_manager)

    @classmethod
    def from_index(
        cls,
        index: Index,
        *,
        encoder: M3Encoder,
        k: int = 4,
        legs: Sequence[Mode] = DEFAULT_LEGS,
        recall: Recall | None = None,
        fusion: Fusion | None = None,
        weights: HybridWeights | None = None,
        filters: Filters = None,
        callback_manager: CallbackManager | None = None,
    ) -> M3EnsembleRetriever:
        """Return a retriever over an index that is there already; see ``HybridRetriever``."""
        hybrid = HybridRetriever(
            encoder, index, legs=legs, recall=recall, fusion=fusion, weights=weights
        )
        return cls(hybrid, k=k, filters=filters, callback_manager=callback_manager)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self.hybrid is not None:
            return [
                *search(
                    self.hybrid,
                    query_bundle.query_str,
                    k=self.k,
                    filter=self._filter,
                    callback_manager=self.callback_manager,
                )
            ]
        found = [leg.retrieve(_own(query_bundle)) for leg in self.retrievers]
        fused = self._fuse(found)
        if self.reranker is None:
            return fused[: self.k]
        return self.reranker.postprocess_nodes(fused, query_bundle=query_bundle)[: self.k]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self.hybrid is not None:
            return [
                *await asearch(
                    self.hybrid,
                    query_bundle.query_str,
                    k=self.k,
                    filter=self._filter,
                    callback_manager=self.callback_manager,
                )
            ]
        runs = (leg.aretrieve(_own(query_bundle)) for leg in self.retrievers)
        fused = await asyncio.to_thread(self._fuse, await asyncio.gather(*runs))
        if self.reranker is None:
            return fused[: self.k]
        best = await self.reranker.apostprocess_nodes(fused, query_bundle=query_bundle)
        return best[: self.k]

    def _fuse(self, found: Sequence[Sequence[NodeWithScore]]) -> list[NodeWithScore]:
        return [*fuse(named_legs(found), self.fusion, id_key=self.id_key)]


def _own(query_bundle: QueryBundle) -> QueryBundle:
    """Return a copy for one leg: a vector retriever leaves its embedding in what it is given."""
    return replace(query_bundle)
