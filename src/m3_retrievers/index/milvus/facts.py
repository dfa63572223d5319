"""What a filter asks, as digests: stated beside each document, looked up in Milvus.

Milvus's own JSON conditions differ from ours (it knows no list that matches by an element, and
Milvus Lite takes True for 1). So each document states what is true of its metadata, a digest a
fact, in one field of text: ``|5f1c…|a07e…|``. ``{"lang": "en"}`` becomes a search for the digest
of (lang, equals, en). An order is kept as text that sorts as the values do. No name and no
value of a user stands in an expression: it consists of hexadecimal digits alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from m3_retrievers.index.conditions import (
    All,
    Condition,
    Field,
    Not,
    order_kind,
    parse_filter,
)

EVERYTHING = "place >= 0"
_NOTHING = "place < 0"
# Bytes of a string by which it is ordered: exact for every bound that is shorter.
_ORDERED_BYTES = 64
# An expression with more alternatives than this is slower than asking the documents here.
_MOST_OPTIONS = 200
# Exponents of floats begin at -1,074; integers of 4,300 digits end at 14,285.
_LEAST_EXPONENT = -1100


@dataclass(frozen=True, slots=True)
class Translation:
    """A filter as an expression of Milvus.

    exact: whether it admits just what the filter admits; otherwise it admits more, and each
    document has still to be asked.
    """

    expression: str
    exact: bool = True


def facts_of(metadata: Mapping[str, Any]) -> str:
    """Return the facts that a document states of itself, each once."""
    return "".join(f"|{fact}" for fact in dict.fromkeys(_facts(metadata))) + "|"


def orders_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the least and the greatest value of each field and kind, as text that sorts."""
    orders = {}
    for name, value in metadata.items():
        kinds: dict[str, list[str]] = {}
        for one in _each(value):
            text = sortable(one, most=_ORDERED_BYTES + 1)
            if text is not None:
                kinds.setdefault(_kind(one), []).append(text)
        for kind, values in kinds.items():
            fact = _digest(name, "ordered", kind)
            orders[f"low{fact}"], orders[f"high{fact}"] = min(values), max(values)
    return orders


def translate(filter: Mapping[str, Any] | None) -> Translation:
    """Return a filter as an expression; raises FilterError as ``parse_filter`` does.

    >>> translate({}).expression, translate({"title": {"$text": "csv"}}).exact
    ('place >= 0', False)
    """
    return _translated(parse_filter(filter), negated=False)


def _translated(condition: Condition, *, negated: bool) -> Translation:
    # `not` goes down to the facts: an expression that is no more than an upper bound cannot be
    # negated, and what Milvus makes of the negation of a missing path depends on its version
    if isinstance(condition, Not):
        return _translated(condition.part, negated=not negated)
    if isinstance(condition, Field):
        return _FIELDS[condition.operator](condition, negated)
    parts = [_translated(part, negated=negated) for part in condition.parts]
    together = isinstance(condition, All) is not negated
    return _all(parts) if together else _any(parts)


def _all(parts: Sequence[Translation]) -> Translation:
    kept = [part.expression for part in parts if part.expression != EVERYTHING]
    return Translation(_joined(" and ", kept) or EVERYTHING, all(part.exact for part in parts))


def _any(parts: Sequence[Translation]) -> Translation:
    if any(part.expression == EVERYTHING for part in parts):
        sure = any(part.exact and part.expression == EVERYTHING for part in parts)
        return Translation(EVERYTHING, sure)
    joined = _joined(" or ", [part.expression for part in parts])
    return Translation(joined or _NOTHING, all(part.exact for part in parts))


def _joined(word: str, expressions: Sequence[str]) -> str:
    return expressions[0] if len(expressions) == 1 else word.join(f"({one})" for one in expressions)


def _equal(field: Field, negated: bool) -> Translation:
    fact = _equality(field.name, field.operand)
    return _to_be_asked(field, negated) if fact is None else _stated(fact, negated)


def _among(field: Field, negated: bool) -> Translation:
    facts = [_equality(field.name, option) for option in field.operand]
    known = [fact for fact in facts if fact is not None]
    if len(known) < len(facts) or len(known) > _MOST_OPTIONS:
        return _to_be_asked(field, negated)
    parts = [_stated(fact, negated) for fact in known]
    return _all(parts) if negated else _any(parts)


def _exists(field: Field, negated: bool) -> Translation:
    return _stated(_digest(field.name, "exists"), negated)


def _empty(field: Field, negated: bool) -> Translation:
    parts = [
        _stated(_digest(field.name, "empty"), negated),
        _stated(_digest(field.name, "exists"), not negated),
    ]
    return _all(parts) if negated else _any(parts)


def _ordered(field: Field, negated: bool) -> Translation:
    bound = sortable(field.operand)
    if bound is None or len(bound) > 2 * _ORDERED_BYTES:
        return _to_be_asked(field, negated)
    fact = _digest(field.name, "ordered", _kind(field.operand))
    sign, complement, end = _ORDER[field.operator]
    compared = f'orders["{end}{fact}"] {complement if negated else sign} "{bound}"'
    has = _stated(fact, False).expression
    if negated:
        return Translation(f"(not ({has})) or (({has}) and ({compared}))")
    return Translation(f"({has}) and ({compared})")


def _to_be_asked(_: Field, __: bool) -> Translation:
    return Translation(EVERYTHING, exact=False)


# the operator, its negation, and the end of a list that decides for all of it
_ORDER = {
    "$gt": (">", "<=", "high"),
    "$gte": (">=", "<", "high"),
    "$lt": ("<", ">=", "low"),
    "$lte": ("<=", ">", "low"),
}
_FIELDS = {
    "$eq": _equal,
    "$in": _among,
    "$exists": _exists,
    "$empty": _empty,
    "$text": _to_be_asked,
    "$itext": _to_be_asked,
    **dict.fromkeys(_ORDER, _ordered),
}


def _stated(fact: str, negated: bool) -> Translation:
    like = f'facts like "%|{fact}|%"'
    return Translation(f"not ({like})" if negated else like)


def _facts(metadata: Mapping[str, Any]) -> list[str]:
    facts = []
    for name, value in metadata.items():
        facts.append(_digest(name, "exists"))
        if value is None or value in ("", []):
            facts.append(_digest(name, "empty"))
        for one in (value, *(value if isinstance(value, list) else ())):
            fact = _equality(name, one)
            assert fact is not None  # metadata came out of JSON
            facts.append(fact)
        for one in _each(value):
            if order_kind(one) is not None:
                facts.append(_digest(name, "ordered", _kind(one)))
    return facts


def _equality(name: str, value: Any) -> str | None:
    """Return the fact that a field equals a value; None for a number of another library's."""
    try:
        return _digest(name, "equals", _canonical(value))
    except TypeError:
        return None


def _digest(*parts: Any) -> str:
    # not as ASCII: it would not tell two halves of a surrogate pair from the character
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _canonical(value: Any) -> Any:
    """Return a value such that equal ones are written alike: 1.0 as 1, a tuple as a list."""
    if isinstance(value, Mapping):
        return {key: _canonical(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(part) for part in value]
    if type(value) is float:
        return int(value) if value.is_integer() else value
    if value is None or type(value) in (bool, int, str):
        return value
    raise TypeError(type(value).__name__)


def _kind(value: Any) -> str:
    kind = order_kind(value)
    return "" if kind is None else kind.__name__


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else (value,)


def sortable(value: Any, *, most: int | None = None) -> str | None:
    """Return hexadecimal text that sorts as the values of a kind do; None for other numbers.

    most: bytes of a string that are looked at, None for all. Exact for integers of any size
    and for floats.

    >>> sorted([3, -1.5, 2**60 + 1, float(2**60), 0, -2], key=sortable)
    [-2, -1.5, 0, 3, 1.152921504606847e+18, 1152921504606846977]
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")[:most].hex()
    if type(value) not in (bool, int, float):
        return None
    if value in (float("inf"), float("-inf")):
        return "3" if value > 0 else "-"
    if value == 0:
        return "1"
    above, below = abs(value).as_integer_ratio()  # a float is an integer over a power of 2
    exponent = above.bit_length() - below.bit_length() - _LEAST_EXPONENT
    fraction = bin(above)[3:].rstrip("0")  # what follows the leading 1
    fraction += "0" * (-len(fraction) % 4)
    digits = f"{int(fraction, 2):0{len(fraction) // 4}x}" if fraction else ""
    if value > 0:
        return f"2{exponent:04x}{digits}"
    # of two negative numbers the one with the greater magnitude sorts first
    turned = f"{exponent:04x}{digits}".translate(_TURNED)
    return f"0{turned}~"


_TURNED = str.maketrans("0123456789abcdef", "fedcba9876543210")
