"""Which documents a metadata filter admits: its conditions compiled, and asked row by row.

A filter is compiled once into nested functions and then asked about every document.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.index.base import Filter
from m3_retrievers.index.conditions import (
    All,
    Condition,
    Field,
    Not,
    order_kind,
    parse_filter,
)
from m3_retrievers.types.hits import Metadata, Record

Test = Callable[[Metadata], bool]
FieldTest = Callable[[Any], bool]

_MISSING = object()
_MASKS_KEPT = 16
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_FOLD: dict[str, Callable[[str], str]] = {"$text": str, "$itext": str.casefold}


def compile_filter(filter: Filter | None) -> Test:
    """Return a function that says whether a document's metadata passes the filter.

    filter: operators $eq $ne $gt $gte $lt $lte $in $nin $exists $empty $text $itext $not
    under a field, and $and $or $not over filters; None and {} admit everything. What each
    means is said in ``conditions.Field``. Raises FilterError as ``parse_filter`` does.

    >>> recent = compile_filter({"year": {"$gte": 2020}, "tags": "rag"})
    >>> recent({"year": 2024, "tags": ["rag", "search"]}), recent({"tags": "rag"})
    (True, False)
    """
    return _compiled(parse_filter(filter))


def _compiled(condition: Condition) -> Test:
    if isinstance(condition, Field):
        name, test = condition.name, _FIELD_TESTS[condition.operator](condition)
        return lambda metadata: test(metadata.get(name, _MISSING))
    if isinstance(condition, Not):
        inner = _compiled(condition.part)
        return lambda metadata: not inner(metadata)
    parts = [_compiled(part) for part in condition.parts]
    if len(parts) == 1:
        return parts[0]
    if isinstance(condition, All):
        return lambda metadata: all(part(metadata) for part in parts)
    return lambda metadata: any(part(metadata) for part in parts)


def _equal(field: Field) -> FieldTest:
    return lambda value: _equals(value, field.operand)


def _among(field: Field) -> FieldTest:
    return lambda value: any(_equals(value, option) for option in field.operand)


def _exists(_: Field) -> FieldTest:
    return lambda value: value is not _MISSING


def _empty(_: Field) -> FieldTest:
    return lambda value: (
        value is _MISSING or value is None or (isinstance(value, str | list | tuple) and not value)
    )


def _holds(field: Field) -> FieldTest:
    fold = _FOLD[field.operator]
    part = fold(field.operand)
    return lambda value: any(isinstance(one, str) and part in fold(one) for one in _each(value))


def _ordered(field: Field) -> FieldTest:
    kind, compare, bound = order_kind(field.operand), _ORDER[field.operator], field.operand
    return lambda value: any(
        order_kind(one) is kind and compare(one, bound) for one in _each(value)
    )


_FIELD_TESTS: dict[str, Callable[[Field], FieldTest]] = {
    "$eq": _equal,
    "$in": _among,
    "$exists": _exists,
    "$empty": _empty,
    **dict.fromkeys(_FOLD, _holds),
    **dict.fromkeys(_ORDER, _ordered),
}


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _equals(value: Any, operand: Any) -> bool:
    if _same(value, operand):
        return True
    return isinstance(value, list | tuple) and any(_same(item, operand) for item in value)


def _same(value: Any, operand: Any) -> bool:
    """Compare as JSON would: True differs from 1 at any depth, a tuple equals a list."""
    if isinstance(value, bool) or isinstance(operand, bool):
        return value is operand
    if isinstance(value, list | tuple) and isinstance(operand, list | tuple):
        return len(value) == len(operand) and all(map(_same, value, operand))
    if isinstance(value, Mapping) and isinstance(operand, Mapping):
        return value.keys() == operand.keys() and all(_same(value[k], operand[k]) for k in value)
    return bool(value == operand)


class FilteredRows:
    """Which rows filters admit, remembered for some filters while the rows stay as they are.

    Safe to share between threads: what is remembered is replaced, never changed.
    """

    def __init__(self) -> None:
        self._kept: tuple[int, dict[str, NDArray[np.bool_]]] = (0, {})

    def __reduce__(self) -> tuple[type[FilteredRows], tuple[()]]:
        """Let copies start empty: another process numbers its states anew."""
        return FilteredRows, ()

    def rows(
        self,
        filter: Filter | None,
        records: Sequence[Record],
        *,
        live: NDArray[np.bool_],
        generation: int,
    ) -> NDArray[np.bool_] | None:
        """Return the mask (n,) of the records that may be found; None for all of them.

        live: mask (n,) of the records that were not deleted. generation: the number of this
        state of both; masks made for another are forgotten. Raises as ``compile_filter`` does.
        """
        test = compile_filter(filter)  # first: only a filter that can be read has a mask
        if not filter:
            return None if live.all() else live
        of, masks = self._kept
        masks = dict(masks) if of == generation else {}
        key = _written(filter)
        mask = None if key is None else masks.pop(key, None)
        if mask is None:
            passed = (
                is_live and test(record.metadata)
                for is_live, record in zip(live.tolist(), records, strict=True)
            )
            mask = np.fromiter(passed, bool, len(live))
            mask.flags.writeable = False
        if key is not None:
            masks[key] = mask  # the last one used stands last
            if len(masks) > _MASKS_KEPT:
                del masks[next(iter(masks))]
            self._kept = generation, masks
        return mask


def _written(filter: Filter) -> str | None:
    """Return a filter as text, each its own; None for one that cannot be written down.

    Keys are strings, so JSON tells 1 from True, "1" and 1.0. As ASCII it would not tell two
    halves of a surrogate pair from the character.
    """
    try:
        return json.dumps(filter, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError):
        return None
