"""M3EnsembleRetriever: recall, fuse, reorder, inside a LlamaIndex query engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Unpack

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle

from m3_retrievers.checks import check_k
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.frameworks import ensemble
from m3_retrievers.frameworks.options import HybridOptions, hybrid_retriever, opened_retriever
from m3_retrievers.habits import check_others, guided
from m3_retrievers.index.base import Index
from m3_retrievers.llama_index.base import M3Retriever, RetrieverOptions
from m3_retrievers.llama_index.fused import afuse_all, filtered, fuse_all
from m3_retrievers.llama_index.legs import asearch, search
from m3_retrievers.llama_index.nodes import restyled, to_records, without_objects
from m3_retrievers.llama_index.questions import prepared
from m3_retrievers.llama_index.reranker import nested, with_reranker_score
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.types.plan import Fusion

_MADE_BY = "M3EnsembleRetriever.from_nodes"


class EnsembleOptions(RetrieverOptions, HybridOptions, total=False):
    """The options of a new M3EnsembleRetriever and of the HybridRetriever under it."""

    reranker: BaseNodePostprocessor | None
    rerank_depth: int


@guided()
class M3EnsembleRetriever(M3Retriever):
    """Hybrid retrieval behind LlamaIndex's retriever interface, over one of two sources.

    ``from_nodes``, ``from_index``, ``load``, or ``M3EnsembleRetriever(HybridRetriever(…))``:
    all legs read one index, and the query is encoded once. Of a QueryBundle with
    ``custom_embedding_strs`` (HyDE) the dense part is the mean of their vectors; the other
    legs and ColBERT read the question itself.

    ``retrievers=[…]``: retrievers of any kind are run as they are and their nodes fused
    (``fusion``, RRF unless another is given; weights: of RRF, a number a retriever). Each
    returns as many nodes as it is set up to; give it more than k. Two nodes are the same if
    their ids are, or text and metadata; id_key: a metadata entry that decides instead.

    reranker: any node postprocessor; it reorders the best ``rerank_depth`` candidates of
    either source, and its score is in the scores as ``reranker``.

    k, or similarity_top_k: how many nodes to return, also per call; so is ``filters``,
    LlamaIndex's MetadataFilters or a mapping in the core's language, which apply before each
    leg's top k; a retriever that cannot do that makes it an error.

    Every node returned is a copy with its scores: each mode's own and ``hybrid``, or
    ``fusion``. scores: ``"nested"`` writes ``metadata["scores"]``, ``"flat"`` an entry a score
    such as ``metadata["score_dense"]``, hidden from models; ``"off"`` none:
    QueryFusionRetriever, which removes duplicates by a hash of text and metadata, needs that.

    objects or object_map: what IndexNodes stand for, as for every retriever; ``from_nodes``
    finds them in the nodes. Each leg shows up as a retrieval of its own. No language model is
    involved.
    """

    def __init__(
        self,
        hybrid: HybridRetriever | None = None,
        *,
        retrievers: Sequence[BaseRetriever] | None = None,
        reranker: BaseNodePostprocessor | None = None,
        rerank_depth: int = ensemble.RERANK_DEPTH,
        fusion: Fusion | None = None,
        weights: Sequence[float] | None = None,
        id_key: str | None = None,
        **options: Unpack[RetrieverOptions],
    ) -> None:
        check_others(options, type(self), also=RetrieverOptions.__annotations__)
        if hybrid is not None:
            ensemble.check_hybrid(hybrid, made_by=_MADE_BY)
        if retrievers is not None:
            retrievers = ensemble.check_retrievers(retrievers, BaseRetriever)
        ensemble.check_sources(
            hybrid,
            retrievers,
            made_by=_MADE_BY,
            retrievers_only={"fusion": fusion, "weights": weights, "id_key": id_key},
        )
        check_k(rerank_depth, name="rerank_depth")
        self.hybrid = hybrid
        self.retrievers = list(retrievers or ())
        self.reranker: BaseNodePostprocessor | None = ensemble.check_reranker(
            reranker, BaseNodePostprocessor, example="M3ColbertRerank"
        )
        self.rerank_depth = rerank_depth
        self.fusion = ensemble.chosen_fusion(fusion, weights, count=len(self.retrievers))
        self.id_key = id_key
        super().__init__(**options)
        if hybrid is None:
            filtered(ensemble.by_name(self.retrievers), self._filter)

    def __repr__(self) -> str:
        inside = self.retrievers if self.hybrid is None else self.hybrid
        return f"M3EnsembleRetriever({inside!r}, k={self.k})"

    @classmethod
    def from_nodes(
        cls,
        nodes: Iterable[BaseNode],
        encoder: Encoder | str | Path,
        *,
        batch_size: int = 256,
        show_progress: bool = False,
        **options: Unpack[EnsembleOptions],
    ) -> M3EnsembleRetriever:
        """Return a retriever over a new index of the nodes (documents are nodes too).

        encoder: the model, or its name. options: legs, recall, fusion, weights, as for
        ``HybridRetriever``; bm25 or tokenizer, for a BM25 leg; k and the other options of the
        retriever. batch_size, show_progress: as for ``HybridRetriever.add``. Raises
        DuplicateIdError for an id given twice.
        """
        check_others(options, cls.from_nodes, also=EnsembleOptions.__annotations__)
        kept, objects = without_objects(nodes)
        own, hybrid_options = _split(options)
        own["object_map"] = {**objects, **(own.get("object_map") or {})}
        hybrid = hybrid_retriever(encoder, options=hybrid_options, method=cls.from_nodes)
        made = cls(hybrid, **own)
        hybrid.upsert(to_records(kept), batch_size=batch_size, show_progress=show_progress)
        return made

    from_documents = from_nodes  # documents are nodes

    @classmethod
    def from_index(
        cls,
        index: Index,
        encoder: Encoder | str | Path,
        **options: Unpack[EnsembleOptions],
    ) -> M3EnsembleRetriever:
        """Return a retriever over an index that is there already; see ``HybridRetriever``."""
        check_others(options, cls.from_index, also=EnsembleOptions.__annotations__)
        own, hybrid_options = _split(options)
        return cls(
            hybrid_retriever(encoder, index, options=hybrid_options, method=cls.from_index), **own
        )

    def save(self, folder: str | Path) -> None:
        """Write index and settings to a folder; see ``HybridRetriever.save``.

        Raises InputError for an ensemble of retrievers, which keep their nodes themselves.
        """
        ensemble.check_savable(self.hybrid).save(folder)

    @classmethod
    def load(
        cls, folder: str | Path, encoder: Encoder | str | Path, **options: Any
    ) -> M3EnsembleRetriever:
        """Return the retriever over what a folder holds; see ``HybridRetriever.load``.

        options: k, filters, scores, reranker, objects and the others that are not saved.
        """
        return cls(HybridRetriever.load(folder, encoder), **options)

    @classmethod
    def open(
        cls,
        path: str | Path | Index,
        encoder: Encoder | str | Path,
        **options: Unpack[EnsembleOptions],
    ) -> M3EnsembleRetriever:
        """Return a retriever over a durable index, made if missing; see ``HybridRetriever.open``.

        Nodes get in through ``retriever.hybrid``, or an M3VectorStore of the same path.
        """
        check_others(options, cls.open, also=EnsembleOptions.__annotations__)
        own, hybrid_options = _split(options)
        return cls(opened_retriever(path, encoder, options=hybrid_options, method=cls.open), **own)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        depth = self.k if self.reranker is None else max(self.k, self.rerank_depth)
        if self.hybrid is not None:
            found = search(
                self.hybrid,
                prepared(self.hybrid, query_bundle),
                k=depth,
                filter=self._filter,
                callback_manager=self.callback_manager,
            )
        else:
            found = fuse_all(self.retrievers, query_bundle, **self._fusing())
        if self.reranker is None:
            return [restyled(node, self.scores) for node in found[: self.k]]
        best = nested(self.reranker).postprocess_nodes(found[:depth], query_bundle=query_bundle)
        return with_reranker_score(best[: self.k], self.scores)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        depth = self.k if self.reranker is None else max(self.k, self.rerank_depth)
        if self.hybrid is not None:
            found = await asearch(
                self.hybrid,
                await in_thread(prepared, self.hybrid, query_bundle),
                k=depth,
                filter=self._filter,
                callback_manager=self.callback_manager,
            )
        else:
            found = await afuse_all(self.retrievers, query_bundle, **self._fusing())
        if self.reranker is None:
            return [restyled(node, self.scores) for node in found[: self.k]]
        best = await nested(self.reranker).apostprocess_nodes(
            found[:depth], query_bundle=query_bundle
        )
        return with_reranker_score(best[: self.k], self.scores)

    def _fusing(self) -> dict[str, Any]:
        return {"fusion": self.fusion, "id_key": self.id_key, "filter": self._filter}


def _split(options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the retriever's own options, and those of the HybridRetriever under it."""
    under = {name: options[name] for name in HybridOptions.__annotations__ if name in options}
    return {name: given for name, given in options.items() if name not in under}, under
