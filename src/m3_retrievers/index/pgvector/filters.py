"""A filter as an SQL condition over the table's JSONB, every value of it a parameter.

What each operator means is said in ``conditions.Field``; a condition here is true or false
and never NULL, so that *not* is its opposite.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, LiteralString

from psycopg import sql

from m3_retrievers.index.base import Filter
from m3_retrievers.index.conditions import (
    All,
    Condition,
    Field,
    Not,
    order_kind,
    parse_filter,
)
from m3_retrievers.index.pgvector.values import comparable, number, written

Params = dict[str, Any]

_NEVER, _ALWAYS = sql.SQL("FALSE"), sql.SQL("TRUE")
# A field's value, or one of a list's, by its kind; in a CASE, so that nothing else is cast.
_STRING: LiteralString = "jsonb_typeof({one}) = 'string' THEN ({one} #>> '{{}}') COLLATE \"C\""
_EACH: LiteralString = """
CASE WHEN jsonb_typeof({value}) = 'array'
     THEN EXISTS (SELECT FROM jsonb_array_elements({value}) AS each (one) WHERE {of_one})
     ELSE {of_value} END"""
_ORDER: dict[str, LiteralString] = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def where(filter: Filter | None, params: Params) -> sql.Composable:
    """Return the condition that a filter stands for; its values go into ``params``.

    Raises FilterError as ``parse_filter`` does.
    """
    return _Translation(params).of(parse_filter(filter))


class _Translation:
    """Writes conditions, and gives every value a name among the statement's parameters."""

    def __init__(self, params: Params) -> None:
        self._params = params

    def of(self, condition: Condition) -> sql.Composable:
        if isinstance(condition, Field):
            return _FIELDS[condition.operator](self, condition)
        if isinstance(condition, Not):
            return sql.SQL("NOT ({})").format(self.of(condition.part))
        parts = [sql.SQL("({})").format(self.of(part)) for part in condition.parts]
        both = isinstance(condition, All)
        if not parts:
            return _ALWAYS if both else _NEVER
        return sql.SQL(" AND " if both else " OR ").join(parts)

    def _param(self, value: Any) -> sql.Placeholder:
        name = f"f{len(self._params)}"
        self._params[name] = value
        return sql.Placeholder(name)

    def _value(self, field: Field, *, column: LiteralString = "metadata") -> sql.Composable:
        place = self._param(written(field.name))
        return sql.SQL("({} -> {}::text)").format(sql.SQL(column), place)

    def equal(self, field: Field) -> sql.Composable:
        return self._among(field, (field.operand,))

    def among(self, field: Field) -> sql.Composable:
        return self._among(field, field.operand)

    def _among(self, field: Field, options: tuple[Any, ...]) -> sql.Composable:
        """Return the condition of $in; scalars by containment, which an index answers."""
        options = tuple(option for option in options if not _holds_infinity(option))
        name, scalars, parts = field.name, [], []
        for option in options:
            if isinstance(option, Mapping | list | tuple):
                parts.append(self._same(field, _json(option)))
            else:
                # the field is the value, or a list with it
                scalars += [_json({name: option}), _json({name: [option]})]
        if scalars:
            parts.append(sql.SQL("metadata @> ANY ({}::jsonb[])").format(self._param(scalars)))
        return sql.SQL(" OR ").join(parts) if parts else _NEVER

    def _same(self, field: Field, option: str) -> sql.Composable:
        value, given = self._value(field), self._param(option)
        one_of = sql.SQL(_EACH).format(
            value=value,
            of_one=sql.SQL("one = {}::jsonb").format(given),
            of_value=_NEVER,
        )
        return sql.SQL("coalesce({} = {}::jsonb, FALSE) OR {}").format(value, given, one_of)

    def exists(self, field: Field) -> sql.Composable:
        return sql.SQL("metadata ? {}::text").format(self._param(written(field.name)))

    def empty(self, field: Field) -> sql.Composable:
        empties = sql.SQL("'null'::jsonb, '\"\"'::jsonb, '[]'::jsonb")
        return sql.SQL("coalesce({} IN ({}), TRUE)").format(self._value(field), empties)

    def ordered(self, field: Field) -> sql.Composable:
        kind, compare = order_kind(field.operand), sql.SQL(_ORDER[field.operator])
        if kind is str:
            test = sql.SQL(_STRING + " {compare} {bound}::text")
            bound: Any = written(field.operand)
        elif kind is bool:
            test = sql.SQL(
                "jsonb_typeof({one}) = 'boolean' THEN ({one})::boolean {compare} {bound}::boolean"
            )
            bound = bool(field.operand)
        else:
            test = sql.SQL(
                "jsonb_typeof({one}) = 'number' THEN ({one})::numeric {compare} {bound}::numeric"
            )
            bound = _decimal(field.operand)
        place = self._param(bound)
        return self._any(
            self._value(field), lambda one: test.format(one=one, compare=compare, bound=place)
        )

    def holds(self, field: Field) -> sql.Composable:
        part = field.operand
        value = self._value(field)
        if field.operator == "$itext":
            # the strings that folding changes are kept folded, the others are as they are
            part = part.casefold()
            lowered = self._value(field, column="folded")
            value = sql.SQL("coalesce({}, {})").format(lowered, value)
        place = self._param(written(part))
        test = sql.SQL(
            "jsonb_typeof({one}) = 'string' "
            "THEN strpos(({one} #>> '{{}}') COLLATE \"C\", {part}::text) > 0"
        )
        return self._any(value, lambda one: test.format(one=one, part=place))

    def _any(
        self, value: sql.Composable, test: Callable[[sql.Composable], sql.Composable]
    ) -> sql.Composable:
        """Return the condition that the value, or one of a list's, passes a WHEN … THEN …."""
        case = sql.SQL("CASE WHEN {} ELSE FALSE END")
        return sql.SQL(_EACH).format(
            value=value,
            of_one=case.format(test(sql.SQL("one"))),
            of_value=case.format(test(value)),
        )


_FIELDS: dict[str, Callable[[_Translation, Field], sql.Composable]] = {
    "$eq": _Translation.equal,
    "$in": _Translation.among,
    "$exists": _Translation.exists,
    "$empty": _Translation.empty,
    **dict.fromkeys(_ORDER, _Translation.ordered),
    **dict.fromkeys(("$text", "$itext"), _Translation.holds),
}


def _json(value: Any) -> str:
    return json.dumps(comparable(value))


def _decimal(value: Any) -> str:
    """Return a number as PostgreSQL's numeric reads it, the infinities too."""
    plain = number(value)
    if isinstance(plain, float) and math.isinf(plain):
        return "Infinity" if plain > 0 else "-Infinity"
    return str(plain)


def _holds_infinity(value: Any) -> bool:
    """Say whether an infinity is in a value: no metadata holds one, so none equals it."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(map(_holds_infinity, value))
    return isinstance(value, float) and math.isinf(value)
