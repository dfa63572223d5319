"""Metadata filters as a tree: read and checked once, for this process and for every engine.

``{"year": {"$gte": 2020}, "$or": [{"lang": "en"}, {"lang": "de"}]}``, with MongoDB's operators:
a bare value means ``$eq``, several keys mean and. Field names are taken literally (no dotted
paths). ``filters`` asks the tree about a document; an engine translates it into its own words.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

from m3_retrievers.errors import FilterError
from m3_retrievers.index.base import Filter
from m3_retrievers.index.values import fault_of, no_value, shown

FieldOperator: TypeAlias = Literal[
    "$eq", "$in", "$gt", "$gte", "$lt", "$lte", "$exists", "$empty", "$text", "$itext"
]
Condition: TypeAlias = "Field | All | Either | Not"


@dataclass(frozen=True, slots=True)
class Field:
    """What one field of a document's metadata has to be.

    ``$eq``: equal to the operand as JSON compares (True is not 1, 1 is 1.0, mappings and lists by
    their parts). ``$in``: equal to one of a tuple of operands. ``$gt $gte $lt $lte``: ordered
    after or before the operand, a number or a string, and of the same kind. ``$text``: a
    string that holds the operand; ``$itext``: in any case (``str.casefold``). ``$exists``: the
    field is there, whatever its value. ``$empty``: it is missing, None, "" or []. These two
    have the operand None.

    A list matches where one of its elements does (``$eq`` also where the whole list is equal).
    A missing field passes ``$empty`` alone; None is a value.
    """

    name: str
    operator: FieldOperator
    operand: Any = None


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; without parts, everything passes."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part holds; without parts, nothing passes."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold: a missing field passes where it would not."""

    part: Condition


_ORDER = ("$gt", "$gte", "$lt", "$lte")
_TEXT = ("$text", "$itext")
_FIELD_OPERATORS = ("$eq", "$ne", *_ORDER, "$in", "$nin", "$exists", "$empty", *_TEXT, "$not")
_FILTER_OPERATORS = ("$and", "$or", "$not")


def parse_filter(filter: Filter | None) -> All:
    """Return the conditions a filter stands for; None and {} have no parts.

    Raises FilterError for an unknown operator, an operand of the wrong shape, and a value that
    no metadata can hold: NaN, a date, a key that is no string, more than 100 levels.

    >>> parse_filter({"year": {"$gte": 2020}}).parts
    (Field(name='year', operator='$gte', operand=2020),)
    >>> parse_filter({"lang": {"$ne": "en"}}).parts
    (Not(part=Field(name='lang', operator='$eq', operand='en')),)
    """
    whole = _mapping({} if filter is None else filter)
    if fault := fault_of(whole):
        raise FilterError(
            f"A filter expects strings as keys, and nesting within reason, got {fault}."
        )
    return _conjunction(whole)


def order_kind(value: Any) -> type | None:
    """Return the class within which a value has an order; None where it has none.

    >>> order_kind(2), order_kind("2"), order_kind(True), order_kind(None)
    (<class 'numbers.Real'>, <class 'str'>, <class 'bool'>, None)
    """
    if isinstance(value, bool):  # before numbers: Python's True is an int, here it is not
        return bool
    if isinstance(value, Real):
        return Real
    return str if isinstance(value, str) else None


def _conjunction(filter: Mapping[str, Any]) -> All:
    return All(tuple(_clause(key, operand) for key, operand in filter.items()))


def _clause(key: str, operand: Any) -> Condition:
    """Read one top-level entry: a logical operator, or a field and its condition."""
    if key == "$not":
        return Not(_conjunction(_mapping(operand)))
    if key in ("$and", "$or"):
        parts = tuple(_conjunction(_mapping(part)) for part in _list(key, operand, filled=True))
        return All(parts) if key == "$and" else Either(parts)
    if key.startswith("$"):
        if key in _FIELD_OPERATORS:
            raise FilterError(
                f'{key} expects to stand under a field, as in {{"year": {{"{key}": …}}}}, got it '
                "at the top of a filter."
            )
        raise _unknown(key, _FILTER_OPERATORS)
    return _field(key, operand)


def _field(name: str, operand: Any) -> Condition:
    """Read what stands under a field: a mapping of operators, or a bare value."""
    if not isinstance(operand, Mapping) or (operand and not any(map(_is_operator, operand))):
        if isinstance(operand, Mapping) and all(f"${key}" in _FIELD_OPERATORS for key in operand):
            meant = {f"${key}": value for key, value in operand.items()}
            raise FilterError(
                f"A field expects operators with a $, got {shown(operand)}. Did you mean "
                f'{shown(meant)}? To compare with this mapping, write {{"$eq": …}}.'
            )
        return Field(name, "$eq", _comparable(operand))
    if not operand:
        raise FilterError(
            'A field expects a value or operators, as in {"year": {"$gte": 2020}}, got {}. '
            "Leave the field out to admit everything."
        )
    parts = tuple(_test(name, operator, value) for operator, value in operand.items())
    return parts[0] if len(parts) == 1 else All(parts)


def _test(name: str, operator: Any, operand: Any) -> Condition:
    if operator in ("$eq", "$ne"):
        equal = Field(name, "$eq", _comparable(operand))
        return equal if operator == "$eq" else Not(equal)
    if operator in ("$in", "$nin"):
        options = tuple(_comparable(option) for option in _list(operator, operand))
        among = Field(name, "$in", options)
        return among if operator == "$in" else Not(among)
    if operator in ("$exists", "$empty"):
        if not isinstance(operand, bool):
            raise FilterError(f"{operator} expects True or False, got {shown(operand)}.")
        holds = Field(name, operator)
        return holds if operand else Not(holds)
    if operator in _TEXT:
        if not isinstance(operand, str):
            raise FilterError(f"{operator} expects a string, got {shown(operand)}.")
        return Field(name, operator, operand)
    if operator == "$not":
        return Not(_field(name, _mapping(operand)))
    if operator in _ORDER:
        if order_kind(operand) is None:
            raise FilterError(f"{operator} expects a number or a string, got {shown(operand)}.")
        return Field(name, operator, _comparable(operand))
    raise _unknown(operator, _FIELD_OPERATORS)


def _comparable(operand: Any) -> Any:
    """Return an operand; FilterError for what no metadata holds: it would match nothing."""
    if odd := no_value(operand):
        raise FilterError(
            f"A filter compares with JSON values, got {odd}. Write it as the metadata holds it: a "
            "string, a number, True, False, None or a list."
        )
    return operand


def _is_operator(key: object) -> bool:
    return isinstance(key, str) and key.startswith("$")


def _mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise FilterError(
            f'A filter expects a mapping such as {{"lang": "en"}}, got {shown(value)}.'
        )
    return value


def _list(name: str, value: Any, *, filled: bool = False) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or (filled and not value):
        wanted = "a non-empty list of filters" if filled else "a list of values"
        raise FilterError(f"{name} expects {wanted}, got {shown(value)}.")
    return value


def _unknown(name: Any, known: Sequence[str]) -> FilterError:
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]}?" if near else ""
    return FilterError(f"A filter knows {' '.join(known)} here, got {name!r}.{hint}")
