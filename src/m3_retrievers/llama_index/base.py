"""What this package's LlamaIndex retrievers share: how many nodes, which, and for one call."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self, TypedDict, TypeVar

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import IndexNode, NodeWithScore, QueryBundle, QueryType
from llama_index_instrumentation.dispatcher import DISPATCHER_SPAN_DECORATED_ATTR

from m3_retrievers.checks import check_k
from m3_retrievers.errors import InputError
from m3_retrievers.frameworks.inputs import all_of, check_question
from m3_retrievers.frameworks.scores import ScoreStyle, check_style
from m3_retrievers.habits import guided
from m3_retrievers.index.filters import compile_filter
from m3_retrievers.llama_index import names
from m3_retrievers.llama_index.filters import Filters, to_filter

Function = TypeVar("Function", bound=Callable[..., Any])


class RetrieverOptions(TypedDict, total=False):
    """The options of every retriever.

    k, or similarity_top_k: how many nodes to return. filters: LlamaIndex's MetadataFilters, or
    a mapping in the core's language. scores: ``"nested"`` writes ``metadata["scores"]``,
    ``"flat"`` an entry a score such as ``metadata["score_dense"]``, ``"off"`` none; see
    ``M3EnsembleRetriever``. The others are LlamaIndex's own.
    """

    k: int | None
    similarity_top_k: int | None
    filters: Filters
    scores: ScoreStyle
    callback_manager: CallbackManager | None
    object_map: dict[str, Any] | None
    objects: list[IndexNode] | None
    verbose: bool


def _traced_by_base(function: Function) -> Function:
    """Mark a method that LlamaIndex's own, which it calls, shows in traces already."""
    setattr(function, DISPATCHER_SPAN_DECORATED_ATTR, True)
    return function


@guided(**names.OF_RETRIEVER)
class M3Retriever(BaseRetriever):
    """A retriever that takes ``k`` and ``filters`` when it is made, and per call."""

    def __init__(
        self,
        *,
        k: int | None = None,
        similarity_top_k: int | None = None,
        filters: Filters = None,
        scores: ScoreStyle = "nested",
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
    ) -> None:
        self.k = _one_k(k, similarity_top_k, default=4)
        self.scores = scores
        self._filter = to_filter(filters)
        compile_filter(self._filter)  # what is wrong with it shows now, not at the first question
        super().__init__(
            callback_manager=callback_manager,
            object_map=object_map,
            objects=objects,
            verbose=verbose,
        )

    @property
    def k(self) -> int:
        """How many nodes to return."""
        return self._k

    @k.setter
    def k(self, k: int) -> None:
        check_k(k)
        self._k = k

    @property
    def scores(self) -> ScoreStyle:
        """How nodes show their scores: ``"nested"``, ``"flat"`` or ``"off"``."""
        return self._scores

    @scores.setter
    def scores(self, scores: ScoreStyle) -> None:
        self._scores = check_style(scores)

    @property
    def similarity_top_k(self) -> int:
        """How many nodes to return: LlamaIndex's name for k."""
        return self.k

    @similarity_top_k.setter
    def similarity_top_k(self, k: int) -> None:
        check_k(k, name="similarity_top_k")
        self.k = k

    @_traced_by_base
    def retrieve(
        self,
        str_or_query_bundle: QueryType,
        *,
        k: int | None = None,
        similarity_top_k: int | None = None,
        filters: Filters = None,
    ) -> list[NodeWithScore]:
        """Return the best nodes.

        k, or similarity_top_k: another number for this call. filters: for this call, beside
        the retriever's own.
        """
        asked = self._for_call(str_or_query_bundle, k, similarity_top_k, filters)
        return BaseRetriever.retrieve(asked, str_or_query_bundle)

    @_traced_by_base
    async def aretrieve(
        self,
        str_or_query_bundle: QueryType,
        *,
        k: int | None = None,
        similarity_top_k: int | None = None,
        filters: Filters = None,
    ) -> list[NodeWithScore]:
        """Return the best nodes; see ``retrieve``."""
        asked = self._for_call(str_or_query_bundle, k, similarity_top_k, filters)
        return await BaseRetriever.aretrieve(asked, str_or_query_bundle)

    def _for_call(
        self, query: object, k: int | None, similarity_top_k: int | None, filters: Filters
    ) -> Self:
        """Return the retriever for one call: a copy where the call has options of its own."""
        text = query.query_str if isinstance(query, QueryBundle) else query
        check_question(text, remedy="Pass a text, or a QueryBundle of one.")
        if k is None and similarity_top_k is None and filters is None:
            return self
        one = copy.copy(self)
        one.k = _one_k(k, similarity_top_k, default=self.k)
        one._filter = all_of([self._filter, to_filter(filters)])
        return one


def _one_k(k: int | None, similarity_top_k: int | None, *, default: int) -> int:
    """Return the k meant by either of two names; raises InputError where they differ."""
    for name, given in (("k", k), ("similarity_top_k", similarity_top_k)):
        if given is not None:
            check_k(given, name=name)
    if k is not None and similarity_top_k is not None and k != similarity_top_k:
        raise InputError(
            f"k and similarity_top_k are two names for one number, got {k} and "
            f"{similarity_top_k}. Give one of them."
        )
    chosen = similarity_top_k if k is None else k
    return default if chosen is None else chosen
