"""Structured queries, as an LLM writes them, in the language of this package's filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.structured_query import (
    Comparator,
    Comparison,
    Operation,
    Operator,
    StructuredQuery,
    Visitor,
)

from m3_retrievers.errors import FilterError
from m3_retrievers.index.base import Filter

_COMPARATORS = {
    Comparator.EQ: "$eq",
    Comparator.NE: "$ne",
    Comparator.GT: "$gt",
    Comparator.GTE: "$gte",
    Comparator.LT: "$lt",
    Comparator.LTE: "$lte",
    Comparator.IN: "$in",
    Comparator.NIN: "$nin",
    Comparator.CONTAIN: "$eq",  # a list matches where one of its elements does
}
_DATES = ("date", "datetime")


class M3Translator(Visitor):
    """Turns LangChain's structured queries into filters, for ``SelfQueryRetriever``.

    Pass it as ``structured_query_translator=M3Translator()`` beside an ``M3VectorStore``. The
    model is told the comparators it may use: all of LangChain's but ``like``. Dates are
    compared as the ISO 8601 strings that metadata keeps.

    >>> recent = Comparison(comparator=Comparator.GTE, attribute="year", value=2020)
    >>> M3Translator().visit_structured_query(StructuredQuery(query="csv", filter=recent))
    ('csv', {'filter': {'year': {'$gte': 2020}}})
    """

    allowed_comparators = tuple(_COMPARATORS)
    allowed_operators = (Operator.AND, Operator.OR, Operator.NOT)

    def visit_operation(self, operation: Operation) -> Filter:
        """Return the filter of directives joined by and, or, not; not: none of them matches."""
        parts = [argument.accept(self) for argument in operation.arguments]
        if operation.operator is Operator.NOT:
            return {"$not": parts[0] if len(parts) == 1 else {"$or": parts}}
        return {f"${operation.operator.value}": parts}

    def visit_comparison(self, comparison: Comparison) -> Filter:
        """Return the filter of one comparison; FilterError for ``like``."""
        named = _COMPARATORS.get(comparison.comparator)
        if named is None:
            raise FilterError(
                f"A structured query expects the comparators {[c.value for c in _COMPARATORS]}, "
                f"got {comparison.comparator.value!r}. Compare another way, or leave it out."
            )
        return {comparison.attribute: {named: _plain(comparison.value)}}

    def visit_structured_query(
        self, structured_query: StructuredQuery
    ) -> tuple[str, dict[str, Filter]]:
        """Return the query's text, and ``{"filter": …}`` where the query has one."""
        if structured_query.filter is None:
            return structured_query.query, {}
        return structured_query.query, {"filter": structured_query.filter.accept(self)}


def _plain(value: Any) -> Any:
    """Return a value as metadata keeps it: LangChain's parser wraps dates in mappings.

    >>> _plain([{"date": "2024-05-01", "type": "date"}, 3])
    ['2024-05-01', 3]
    """
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    kind = value.get("type") if isinstance(value, Mapping) else None
    return value[kind] if kind in _DATES else value
