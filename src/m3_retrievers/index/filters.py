"""Metadata filters, with MongoDB's operators and meaning.

``{"year": {"$gte": 2020}, "$or": [{"lang": "en"}, {"lang": "de"}]}``: a bare value means
``$eq``, several keys mean and. Field names are taken literally (no dotted paths).

A filter is compiled once into nested functions and then asked about every document.
"""

from __future__ import annotations

import difflib
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import FilterError
from m3_retrievers.index.base import Filter
from m3_retrievers.index.values import fault_of, no_value, shown
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

    Raises FilterError for an unknown operator, an operand of the wrong shape, and a value that
    no metadata can hold: NaN, a date, a key that is no string, more than 100 levels.

    >>> recent = compile_filter({"year": {"$gte": 2020}, "tags": "rag"})
    >>> recent({"year": 2024, "tags": ["rag", "search"]}), recent({"tags": "rag"})
    (True, False)
    """
    whole = _mapping({} if filter is None else filter)
    if fault := fault_of(whole):
        raise FilterError(
            f"A filter expects strings as keys, and nesting within reason, got {fault}."
        )
    return _conjunction(whole)


def _conjunction(filter: Mapping[str, Any]) -> Test:
    return _all([_clause(key, operand) for key, operand in filter.items()])


def _clause(key: str, operand: Any) -> Test:
    """Compile one top-level entry: a logical operator, or a field and its condition."""
    if key == "$not":
        inner = _conjunction(_mapping(operand))
        return lambda metadata: not inner(metadata)
    if key in ("$and", "$or"):
        tests = [_conjunction(_mapping(part)) for part in _sequence(key, operand, filled=True)]
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
                f"A field expects operators with a $, got {shown(operand)}. Did you mean "
                f'{shown(meant)}? To compare with this mapping, write {{"$eq": …}}.'
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
            raise FilterError(f"{name} expects True or False, got {shown(operand)}.")
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
    _comparable(operand)

    def test(value: Any) -> bool:
        if _same(value, operand):
            return True
        return isinstance(value, list | tuple) and any(_same(item, operand) for item in value)

    return test


def _comparable(operand: Any) -> None:
    """Raise FilterError for what no metadata can hold: it would match nothing, in silence."""
    if odd := no_value(operand):
        raise FilterError(
            f"A filter compares with JSON values, got {odd}. Write it as the metadata holds it: a "
            "string, a number, True, False, None or a list."
        )


def _part(name: str, operand: Any) -> FieldTest:
    if not isinstance(operand, str):
        raise FilterError(f"{name} expects a string, got {shown(operand)}.")
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
        raise FilterError(f"{name} expects a number or a string, got {shown(operand)}.")
    _comparable(operand)
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
            f'A filter expects a mapping such as {{"lang": "en"}}, got {shown(value)}.'
        )
    return value


def _sequence(name: str, value: Any, *, filled: bool = False) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or (filled and not value):
        wanted = "a non-empty list of filters" if filled else "a list of values"
        raise FilterError(f"{name} expects {wanted}, got {shown(value)}.")
    return value


def _unknown(name: Any, known: Sequence[str]) -> FilterError:
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]}?" if near else ""
    return FilterError(f"A filter knows {' '.join(known)} here, got {name!r}.{hint}")


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
