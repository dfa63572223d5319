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
    if ids is None and filter is None:
        raise InputError(
            "delete expects a list of ids or a filter=, got neither. Name what is to go; "
            "delete(index.ids) empties an index."
        )
    if ids is None:
        return index.where(filter)
    named = list(dict.fromkeys(check_ids(ids, name="delete")))
    admits = compile_filter(filter)
    return [record.id for record in index.get(named) if admits(record.metadata)]
