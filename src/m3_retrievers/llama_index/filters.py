"""LlamaIndex's metadata filters in the core's language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from m3_retrievers.errors import FilterError
from m3_retrievers.index.base import Filter

Filters: TypeAlias = MetadataFilters | Filter | None

_OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    # under the core's $eq and $in a list matches where one of its elements does
    FilterOperator.ANY: "$in",
    FilterOperator.CONTAINS: "$eq",
    FilterOperator.TEXT_MATCH: "$text",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "$itext",
}


def to_filter(filters: Filters) -> Filter | None:
    """Return the core's filter for LlamaIndex's, nested ones included; a core filter as it is.

    ``and``, ``or`` and ``not`` (none of them matches) over filters and groups of filters; an
    empty group admits everything. A missing field passes only ``!=``, ``nin`` and
    ``is_empty``. Raises FilterError for what is no filter; the core checks the operands.

    >>> year = MetadataFilter(key="year", operator=">=", value=2020)
    >>> german = MetadataFilters(filters=[MetadataFilter(key="lang", value="de")], condition="not")
    >>> to_filter(MetadataFilters(filters=[year, german]))
    {'$and': [{'year': {'$gte': 2020}}, {'$not': {'$or': [{'lang': {'$eq': 'de'}}]}}]}
    """
    if filters is None or isinstance(filters, Mapping):
        return filters
    if isinstance(filters, MetadataFilters):
        return _group(filters)
    raise FilterError(
        "filters expects MetadataFilters(filters=[…]), or a mapping such as {'lang': 'en'}, got "
        f"{filters!r:.80}."
    )


def _group(group: MetadataFilters) -> Filter:
    parts = [_group(p) if isinstance(p, MetadataFilters) else _one(p) for p in group.filters]
    if not parts:
        return {}
    if group.condition is FilterCondition.OR:
        return {"$or": parts}
    if group.condition is FilterCondition.NOT:
        return {"$not": {"$or": parts}}
    return {"$and": parts}


def _one(filter: MetadataFilter) -> Filter:
    key, value = filter.key, filter.value
    if filter.operator is FilterOperator.IS_EMPTY:
        return {key: {"$empty": True}}
    if filter.operator is FilterOperator.ALL:
        options: Any = value
        if not isinstance(options, list) or not options:
            raise FilterError(f"The operator all expects a list of values, got {value!r:.80}.")
        return {"$and": [{key: {"$eq": option}} for option in options]}
    return {key: {_OPERATORS[filter.operator]: value}}
