"""Which records a delete names, the same for every index."""

from __future__ import annotations

from collections.abc import Sequence

from m3_retrievers.checks import check_ids
from m3_retrievers.errors import InputError
from m3_retrievers.index.base import Filter, Index
from m3_retrievers.index.filters import compile_filter


def ids_to_delete(
    index: Index, ids: Sequence[str] | None, *, filter: Filter | None = None
) -> list[str]:
    """Return the known ids, each once, of these ids and admitted by the filter.

    ids or filter may be left out, and then does not restrict. Raises InputError without
    either: nothing is emptied by an argument that was forgotten.
    """
    named = named_for_delete(ids, filter)
    if named is None:
        return index.where(filter)
    admits = compile_filter(filter)
    return [record.id for record in index.get(named) if admits(record.metadata)]


def named_for_delete(ids: Sequence[str] | None, filter: Filter | None) -> list[str] | None:
    """Return the ids a delete names, each once; None where the filter alone restricts.

    Raises InputError without either.
    """
    if ids is None and filter is None:
        raise InputError(
            "delete expects a list of ids or a filter=, got neither. Name what is to go; "
            "delete(index.ids) empties an index."
        )
    return None if ids is None else list(dict.fromkeys(check_ids(ids, name="delete")))
