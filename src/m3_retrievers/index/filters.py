"""Metadata filters, with MongoDB's operators and meaning.

``{"year": {"$gte": 2020}, "$or": [{"lang": "en"}, {"lang": "de"}]}``: a bare value means
``$eq``, several keys mean and. Field names are taken literally (no dotted paths).

A filter is compiled once into nested functions and then asked about every document.
"""

from __future__ import annotations

import difflib
import json
import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import FilterError
from m3_retrievers.index.base import Filter
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
_TEXT: dict[str, Callable[[str], str]] = {"$text": str, "$itext": str.casefold}
_FIELD_OPERATORS = ("$eq", "$ne", *_ORDER, "$in", "$nin", "$exists", "$empty", *_TEXT, "$not")
_FILTER_OPERATORS = ("$and", "$or", "$not")


def compile_filter(filter: Filter | None) -> Test:
    """Return a function that says whether a document's metadata passes the filter.

    filter: operators $eq $ne $gt $gte $lt $lte $in $nin $exists $empty $text $itext $not
    under a field, and $and $or $not over filters; None and {} admit everything. $text asks
    for a part of a string, $itext for one in any case; $empty for a field that is missing,
    None, "" or []. A missing field passes only $ne, $nin, $not, ``{"$exists": False}`` and
    ``{"$empty": True}``; values of kinds that cannot be compared do not match (True is not
    1); a list matches where one of its elements does.

    Raises FilterError for an unknown operator or an operand of the wrong shape.

    >>> recent = compile_filter({"year": {"$gte": 2020}, "tags": "rag"})
    >>> recent({"year": 2024, "tags": ["rag", "search"]}), recent({"tags": "rag"})
    (True, False)
    """
    clauses = _mapping({} if filter is None else filter)
    return _all([_clause(key, operand) for key, operand in clauses.items()])


def _clause(key: Any, operand: Any) -> Test:
    """Compile one top-level entry: a logical operator, or a field and its condition."""
    if not isinstance(key, str):
        raise FilterError(f"A filter expects field names as keys, got {key!r}. Use strings.")
    if key == "$not":
        inner = compile_filter(_mapping(operand))
        return lambda metadata: not inner(metadata)
    if key in ("$and", "$or"):
        tests = [compile_filter(_mapping(part)) for part in _sequence(key, operand, filled=True)]
        return _all(tests) if key == "$and" else _any(tests)
    if key.startswith("$"):
        if key in _FIELD_OPERATORS:
            raise FilterError(
                f'{key} expects to stand under a field, as in {{"year": {{"{key}": …}}}}, got it '
                "at the top of a filter."
            )
        raise _unknown(key, _FILTER_OPERATORS)
    test = _condition(operand)
    return lambda metadata: test(metadata.get(key, _MISSING))


def _condition(operand: Any) -> FieldTest:
    """Compile what stands under a field: a mapping of operators, or a bare value."""
    if not isinstance(operand, Mapping) or (operand and not any(map(_is_operator, operand))):
        if isinstance(operand, Mapping) and all(f"${key}" in _FIELD_OPERATORS for key in operand):
            meant = {f"${key}": value for key, value in operand.items()}
            raise FilterError(
                f"A field expects operators with a $, got {_short(operand)}. Did you mean "
                f'{_short(meant)}? To compare with this mapping, write {{"$eq": …}}.'
            )
        return _equal(operand)
    if not operand:
        raise FilterError(
            'A field expects a value or operators, as in {"year": {"$gte": 2020}}, got {}. '
            "Leave the field out to admit everything."
        )
    tests = [_field_test(name, value) for name, value in operand.items()]
    return _all(tests)


def _field_test(name: Any, operand: Any) -> FieldTest:
    if name == "$eq":
        return _equal(operand)
    if name == "$ne":
        return _negate(_equal(operand))
    if name in ("$in", "$nin"):
        among = _any([_equal(option) for option in _sequence(name, operand)])
        return among if name == "$in" else _negate(among)
    if name in ("$exists", "$empty"):
        if not isinstance(operand, bool):
            raise FilterError(f"{name} expects True or False, got {_short(operand)}.")
        holds: FieldTest = _empty if name == "$empty" else lambda value: value is not _MISSING
        return lambda value: holds(value) is operand
    if name in _TEXT:
        return _part(name, operand)
    if name == "$not":
        return _negate(_condition(_mapping(operand)))
    if name in _ORDER:
        return _ordered(name, operand)
    raise _unknown(name, _FIELD_OPERATORS)


def _equal(operand: Any) -> FieldTest:
    def test(value: Any) -> bool:
        if _same(value, operand):
            return True
        return isinstance(value, list | tuple) and any(_same(item, operand) for item in value)

    return test


def _part(name: str, operand: Any) -> FieldTest:
    if not isinstance(operand, str):
        raise FilterError(f"{name} expects a string, got {_short(operand)}.")
    fold = _TEXT[name]
    part = fold(operand)

    def test(value: Any) -> bool:
        items = value if isinstance(value, list | tuple) else (value,)
        return any(isinstance(item, str) and part in fold(item) for item in items)

    return test


def _empty(value: Any) -> bool:
    return (
        value is _MISSING or value is None or (isinstance(value, str | list | tuple) and not value)
    )


def _ordered(name: str, operand: Any) -> FieldTest:
    kind = _kind(operand)
    if kind is None:
        raise FilterError(f"{name} expects a number or a string, got {_short(operand)}.")
    compare = _ORDER[name]

    def test(value: Any) -> bool:
        items = value if isinstance(value, list | tuple) else (value,)
        return any(_kind(item) is kind and compare(item, operand) for item in items)

    return test


def _kind(value: Any) -> type | None:
    """Return the class within which a value has an order; None where it has none."""
    if isinstance(value, bool):  # before numbers: Python's True is an int, here it is not
        return bool
    if isinstance(value, Real):
        return Real
    return str if isinstance(value, str) else None


def _same(value: Any, operand: Any) -> bool:
    """Compare as JSON would: True differs from 1 at any depth, a tuple equals a list."""
    if isinstance(value, bool) or isinstance(operand, bool):
        return value is operand
    if isinstance(value, list | tuple) and isinstance(operand, list | tuple):
        return len(value) == len(operand) and all(map(_same, value, operand))
    if isinstance(value, Mapping) and isinstance(operand, Mapping):
        return value.keys() == operand.keys() and all(_same(value[k], operand[k]) for k in value)
    return bool(value == operand)


def _all(tests: Sequence[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)


def _any(tests: Sequence[Callable[[Any], bool]]) -> Callable[[Any], bool]:
    return lambda value: any(test(value) for test in tests)


def _negate(test: FieldTest) -> FieldTest:
    return lambda value: not test(value)


def _is_operator(key: object) -> bool:
    return isinstance(key, str) and key.startswith("$")


def _mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise FilterError(
            f'A filter expects a mapping such as {{"lang": "en"}}, got {_short(value)}.'
        )
    return value


def _sequence(name: str, value: Any, *, filled: bool = False) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or (filled and not value):
        wanted = "a non-empty list of filters" if filled else "a list of values"
        raise FilterError(f"{name} expects {wanted}, got {_short(value)}.")
    return value


def _unknown(name: Any, known: Sequence[str]) -> FilterError:
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]}?" if near else ""
    return FilterError(f"A filter knows {' '.join(known)} here, got {name!r}.{hint}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class FilteredRows:
    """Which rows filters admit, remembered for some filters until ``clear``."""

    def __init__(self) -> None:
        self._masks: OrderedDict[str, NDArray[np.bool_]] = OrderedDict()
        self._generation = -1

    def rows(
        self,
        filter: Filter | None,
        records: Sequence[Record],
        *,
        live: NDArray[np.bool_],
        generation: int,
    ) -> NDArray[np.bool_] | None:
        """Return the mask (n,) of the records that may be found; None for all of them.

        live: mask (n,) of the records that were not deleted.
        """
        if generation != self._generation:
            self._masks.clear()
            self._generation = generation
        alive = live
        test = compile_filter(filter)
        if not filter:
            return None if alive.all() else alive
        key = _written(filter)
        mask = None if key is None else self._masks.get(key)
        if mask is None:
            passed = (
                is_alive and test(record.metadata)
                for is_alive, record in zip(alive.tolist(), records, strict=True)
            )
            mask = np.fromiter(passed, bool, len(alive))
        if key is not None:
            self._masks[key] = mask
            self._masks.move_to_end(key)
            if len(self._masks) > _MASKS_KEPT:
                self._masks.popitem(last=False)
        return mask


def _written(filter: Filter) -> str | None:
    """Return a filter as text; None for one that cannot be written down."""
    try:
        return json.dumps(filter, sort_keys=True)
    except (TypeError, ValueError):
        return None
