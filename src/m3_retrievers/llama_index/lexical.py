"""Lexical retrieval by itself: M3's learned term weights, or BM25 without any model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Self, Unpack

from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.frameworks.inputs import as_model, check_leg
from m3_retrievers.frameworks.options import Tokenizer
from m3_retrievers.habits import check_others, guided
from m3_retrievers.index.base import Index
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.lexical.bm25 import BM25, as_bm25
from m3_retrievers.llama_index.base import M3Retriever, RetrieverOptions
from m3_retrievers.llama_index.nodes import from_ranking, restyled, to_records, without_objects
from m3_retrievers.retrieval.storing import store
from m3_retrievers.retrieval.threads import in_thread
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import Mode
from m3_retrievers.types.representations import Representations


@guided(save="M3EnsembleRetriever.from_nodes(…).save(folder)")
class LexicalRetriever(M3Retriever):
    """What the two have in common: one lexical leg of one index.

    index: keeps the nodes. options: k or similarity_top_k, filters, scores, and LlamaIndex's
    own; k and filters also per call. Nodes that share no term with the query are never
    returned.
    """

    mode: ClassVar[Mode]

    def __init__(self, index: Index, **options: Unpack[RetrieverOptions]) -> None:
        check_others(options, type(self), also=RetrieverOptions.__annotations__)
        made_by = f"{type(self).__name__}.from_nodes"
        self.index = check_leg(index, self.mode, owner=type(self).__name__, made_by=made_by)
        super().__init__(**options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.index!r}, k={self.k})"

    @abstractmethod
    def _query(self, text: str) -> Query:
        """Return the query with what the leg needs of it."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        query = self._query(query_bundle.query_str)
        ranking = self.index.recall(query, self.mode, k=self.k, filter=self._filter)
        found = from_ranking(self.index, ranking, self.mode)
        return [restyled(node, self.scores) for node in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await in_thread(self._retrieve, query_bundle)


@guided()
class M3SparseRetriever(LexicalRetriever):
    """Retrieval by M3's learned term weights; ``metadata["scores"]["sparse"]`` says how well.

    encoder: a model with a sparse head, or its name; the one the index was built with.
    """

    mode = "sparse"

    def __init__(
        self, index: Index, encoder: Encoder | str | Path, **options: Unpack[RetrieverOptions]
    ) -> None:
        self.encoder = as_model(encoder)
        super().__init__(index, **options)

    @classmethod
    def from_nodes(
        cls,
        nodes: Iterable[BaseNode],
        encoder: Encoder | str | Path,
        *,
        batch_size: int = 256,
        show_progress: bool = False,
        **options: Unpack[RetrieverOptions],
    ) -> Self:
        """Return a retriever over new nodes; options as for the class.

        Raises MissingHeadError for a model without a sparse head, DuplicateIdError for an id
        given twice, InputError for an option that is not known.
        """
        check_others(options, cls.from_nodes, also=RetrieverOptions.__annotations__)
        kept, objects = without_objects(nodes)
        options["object_map"] = {**objects, **(options.get("object_map") or {})}
        made = cls(LocalIndex(modes=("sparse",)), encoder, **options)
        store(
            made.index,
            made.encoder,
            to_records(kept),
            replace=False,
            batch_size=batch_size,
            show_progress=show_progress,
        )
        return made

    from_documents = from_nodes  # documents are nodes

    def _query(self, text: str) -> Query:
        return Query(text, self.encoder.encode_query(text, outputs=("sparse",)))


@guided()
class BM25Retriever(LexicalRetriever):
    """Retrieval by BM25, without a model; ``metadata["scores"]["bm25"]`` says how well.

    Variant, idf and tokenizer are settings of the ``BM25`` it is made with.
    """

    mode = "bm25"

    @classmethod
    def from_nodes(
        cls,
        nodes: Iterable[BaseNode],
        *,
        bm25: BM25 | None = None,
        tokenizer: Tokenizer | None = None,
        **options: Unpack[RetrieverOptions],
    ) -> BM25Retriever:
        """Return a retriever over new nodes; options as for the class.

        bm25: None is ``BM25()``. tokenizer: the same for ``BM25(tokenizer=…)``: a callable or a
        language such as ``"german"``. Raises
        DuplicateIdError for an id given twice, InputError for an option that is not known.
        """
        check_others(options, cls.from_nodes, also=RetrieverOptions.__annotations__)
        kept, objects = without_objects(nodes)
        options["object_map"] = {**objects, **(options.get("object_map") or {})}
        index = LocalIndex(modes=(), weighting=as_bm25(bm25, tokenizer))
        made = cls(index, **options)
        index.add(to_records(kept), Representations())
        return made

    from_documents = from_defaults = from_nodes  # documents are nodes; LlamaIndex's own is named so

    def _query(self, text: str) -> Query:
        return Query(text)
