"""Which of LangChain's retrievers take a filter of this package for one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.retrievers import RetrieverLike
from langchain_core.runnables import RunnableBinding, RunnableConfig
from langchain_core.vectorstores import VectorStoreRetriever

from m3_retrievers.frameworks.ensemble import check_filtered
from m3_retrievers.frameworks.inputs import all_of
from m3_retrievers.habits import check_options
from m3_retrievers.index.base import Filter
from m3_retrievers.langchain.store import M3VectorStore


class TakesFilter:
    """Mixed into a retriever whose ``invoke`` takes a filter, and applies it before its top k."""

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return the best documents; k and filter: for this call alone."""
        self._check_call(kwargs)
        return super().invoke(input, config, **kwargs)  # type: ignore[misc]

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Return the best documents; see ``invoke``."""
        self._check_call(kwargs)
        return await super().ainvoke(input, config, **kwargs)  # type: ignore[misc]

    def _check_call(self, kwargs: Mapping[str, Any]) -> None:
        check_options(kwargs, known=("k", "filter"), owner=f"{type(self).__name__}.invoke")


def filtered(
    retrievers: Mapping[str, RetrieverLike], filter: Filter | None
) -> dict[str, dict[str, Any]]:
    """Return by name what each retriever's ``invoke`` is given to apply the filter.

    A retriever with a filter of its own applies both. Raises InputError where one of them
    takes none.
    """
    if not filter:
        return {name: {} for name in retrievers}
    taking = {name: one for name, one in retrievers.items() if _takes_filter(one)}
    check_filtered(retrievers, taking, option="filter")
    return {name: {"filter": all_of([_own_filter(one), filter])} for name, one in taking.items()}


def _takes_filter(retriever: RetrieverLike) -> bool:
    if isinstance(retriever, RunnableBinding):
        return _takes_filter(retriever.bound)
    if isinstance(retriever, VectorStoreRetriever):
        return isinstance(retriever.vectorstore, M3VectorStore)
    return isinstance(retriever, TakesFilter)


def _own_filter(retriever: RetrieverLike) -> Filter | None:
    if isinstance(retriever, RunnableBinding):
        bound: Filter | None = retriever.kwargs.get("filter")
        return _own_filter(retriever.bound) if bound is None else bound
    if isinstance(retriever, VectorStoreRetriever):
        stored: Filter | None = retriever.search_kwargs.get("filter")
        return stored
    return None
