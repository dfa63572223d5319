"""Metadata as Qdrant can filter it exactly, and filters in those terms.

Qdrant's own conditions on metadata are not this package's: 1 does not match 1.0, strings have
no order, a dot in a field's name is a path, large integers are rounded, a nested mapping equals
nothing. So each record carries, beside its metadata, what was made of it for filters:

- ``facts``: a list of strings. ``"year"=2020`` for each value, and each element of a list, in
  one spelling for all values that are equal; ``"year"?`` where the field is there, and
  ``"year"!`` where there is something in it. Equality, ``$in``, ``$exists`` and ``$empty`` are
  then one match of strings, whatever the values are.
- ``numbers``: the numbers of each field, as float64. An integer that float64 does not hold is
  there as its two neighbours; with ``facts`` for equality, comparing with a float is exact.
- ``strings``: the strings of each field as numbers in their order (see ``ordering``).

What is left (``$text``, a bound that float64 does not hold, one of 30 bytes or more) is decided in
this process, over the records that the rest of the filter admits. The other way, conditions
on the metadata itself where they agree, would make a filter's speed and meaning depend on the
types in the data, which the filter does not know.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from m3_retrievers.index.conditions import All, Condition, Either, Field, Not
from m3_retrievers.index.qdrant.ordering import beyond, levels
from m3_retrievers.index.qdrant.requests import (
    EVERYTHING,
    Clause,
    Every,
    Match,
    Never,
    Some,
    Span,
)
from m3_retrievers.types.hits import Metadata

FACTS, NUMBERS, STRINGS = "facts", "numbers", "strings"
_PLAIN = re.compile(r"[A-Za-z0-9_]{1,100}")
_LONGEST = 200


def facts(metadata: Metadata) -> list[str]:
    """Return what equality can be asked of, as strings.

    >>> facts({"year": 2020.0, "tags": ["a", None]})
    ['"year"?', '"year"!', '"year"=2020', '"tags"?', '"tags"!', '"tags"=["a",null]', \
'"tags"="a"', '"tags"=null']
    """
    return list(dict.fromkeys(_facts(metadata)))


def _facts(metadata: Metadata) -> Iterator[str]:
    for name, value in metadata.items():
        yield _fact(name, "?")
        if value is not None and value not in ("", []):
            yield _fact(name, "!")
        for one in (value, *value) if isinstance(value, list) else (value,):
            yield _fact(name, f"={_written(one)}")


def numbers(metadata: Metadata) -> dict[str, list[float]]:
    """Return the numbers of each field as float64, by the field's key.

    >>> numbers({"year": 2020, "range": [0.5, "x"], "ok": True, "n": 2**53 + 1})
    {'year': [2020.0], 'range': [0.5], 'n': [9007199254740992.0, 9007199254740994.0]}
    """
    found = {}
    for name, value in metadata.items():
        values = value if isinstance(value, list) else [value]
        bounds = [bound for one in values for bound in _bounds(one)]
        if bounds:
            found[field_key(name)] = list(dict.fromkeys(bounds))
    return found


def strings(metadata: Metadata) -> dict[str, list[dict[str, float]]]:
    """Return the strings of each field as ``ordering`` writes them, by the field's key.

    >>> strings({"day": "", "year": 2020})
    {'day': [{'l0': 0.0}]}
    """
    found = {}
    for name, value in metadata.items():
        texts = [
            one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)
        ]
        if texts:
            found[field_key(name)] = [levels(text) for text in dict.fromkeys(texts)]
    return found


def _bounds(value: Any) -> Iterator[float]:
    """Yield a number as float64, or the two of them that it lies between."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    try:
        nearest = float(value)
    except OverflowError:
        yield math.copysign(sys.float_info.max, 1 if value > 0 else -1)
        return
    yield nearest
    if nearest != value:
        yield math.nextafter(nearest, math.inf if nearest < value else -math.inf)


def field_key(name: str) -> str:
    """Return the key of a field's numbers and strings: its name, or a digest of no plain word.

    >>> field_key("year"), field_key("a.b") == field_key("a_b")
    ('year', False)
    """
    if _PLAIN.fullmatch(name):
        return name
    return f"-{_digest(name)}"


def translated(condition: Condition) -> tuple[Clause, bool]:
    """Return a condition in Qdrant's terms, and whether it says the same.

    Where it does not, it admits more, and the records it admits are to be asked one by one.

    >>> translated(Field("year", "$gt", 2020))
    (Span(key='numbers.year', gt=2020.0, gte=None, lt=None, lte=None), True)
    >>> translated(Field("name", "$text", "a"))
    (Match(key='facts', values=('"name"?',)), False)
    """
    if isinstance(condition, Field):
        exact = _field(condition)
        return (_exists(condition.name), False) if exact is None else (exact, True)
    if isinstance(condition, Not):
        inner, same = translated(condition.part)
        return (Never(inner), True) if same else (EVERYTHING, False)
    parts = [translated(part) for part in condition.parts]
    clauses, same = tuple(clause for clause, _ in parts), all(same for _, same in parts)
    if isinstance(condition, All):
        return (clauses[0] if len(clauses) == 1 else Every(clauses)), same
    assert isinstance(condition, Either)
    return (Some(clauses) if clauses else Never(EVERYTHING)), same


def _field(field: Field) -> Clause | None:
    """Return what says the same of a field; None where nothing does."""
    if field.operator == "$exists":
        return _exists(field.name)
    if field.operator == "$empty":
        return Never(Match(FACTS, (_fact(field.name, "!"),)))
    if field.operator == "$eq":
        return _among(field.name, (field.operand,))
    if field.operator == "$in":
        return _among(field.name, field.operand)
    if field.operator in ("$text", "$itext"):
        return None
    return _compared(field)


def _exists(name: str) -> Clause:
    return Match(FACTS, (_fact(name, "?"),))


def _among(name: str, operands: Sequence[Any]) -> Clause | None:
    if not operands:
        return Never(EVERYTHING)
    if not all(map(_is_plain, operands)):
        return None
    return Match(FACTS, tuple(_fact(name, f"={_written(operand)}") for operand in operands))


def _compared(field: Field) -> Clause | None:
    bound, after = field.operand, field.operator in ("$gt", "$gte")
    further = _beyond(field.name, bound, after=after)
    if further is None or field.operator in ("$gt", "$lt"):
        return further
    return Some((further, Match(FACTS, (_fact(field.name, f"={_written(bound)}"),))))


def _beyond(name: str, bound: Any, *, after: bool) -> Clause | None:
    """Return that a value of a field lies after a bound, or before it; None where nothing does."""
    if isinstance(bound, str):
        return beyond(f"{STRINGS}.{field_key(name)}", bound, after=after)
    if not _is_plain(bound) or isinstance(bound, bool):
        return None
    if not abs(bound) < sys.float_info.max or float(bound) != bound:
        return None
    key, number = f"{NUMBERS}.{field_key(name)}", float(bound)
    return Span(key, gt=number) if after else Span(key, lt=number)


def _is_plain(value: Any) -> bool:
    """Whether a value compares as its spelling does: JSON, and integers of numpy's.

    Other numbers (Fraction, numpy's float32) compare by rules of their own.
    """
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str | np.integer)


def _fact(name: str, rest: str) -> str:
    fact = _json(name) + rest
    return fact if len(fact) <= _LONGEST and is_unicode(fact) else f"#{_digest(fact)}"


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can carry a text: it has no half of a surrogate pair.

    >>> is_unicode("é"), is_unicode(chr(0xD800))
    (True, False)
    """
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _json(value: str | bool | None) -> str:
    # without escapes: two halves of a surrogate pair and their character would get the same
    return json.dumps(value, ensure_ascii=False)


def _written(value: Any) -> str:
    """Return a value as text, the same for values that are equal.

    >>> _written(1) == _written(1.0), _written(True) == _written(1), _written({"b": 1, "a": -0.0})
    (True, False, '{"a":0,"b":1}')
    """
    if value is None or isinstance(value, bool | str):
        return _json(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        parts = (f"{_json(key)}:{_written(value[key])}" for key in sorted(value))
        return f"{{{','.join(parts)}}}"
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole or isinstance(value, int | np.integer) else repr(float(value))
