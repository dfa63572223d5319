"""Python's strings and numbers in a database that cannot hold all of them, with their order.

PostgreSQL's text and JSONB hold no NUL and no lone surrogate. Strings are written so that all
of them fit, most as they are, and so that equality, the order by code points (``COLLATE "C"``
over UTF-8) and "contains" are those of Python. Numbers are written as the decimals whose
order and equality are those of Python's mixture of integers and floats.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias

# What is written otherwise, between its neighbours in the order of code points: U+0000 to U+0005
# as U+0001 and two digits, U+D7FF (unassigned) and the surrogates after it as U+D7FF and six. A
# digit stands for itself nowhere, and a mark never second, so that no part of a written character
# looks like another one.
_DIGITS = "\x02\x03\x04\x05"
_ODD = re.compile("[\x00-\x05\ud7ff-\udfff]")
_WRITTEN = re.compile("\x01[\x02-\x05]{2}|\ud7ff[\x02-\x05]{6}")
# From here up every float is an integer, and its shortest decimal may be another integer.
_EXACT = 2.0**53

# How a token's vector lies in the array: halfvec or vector.
TokenDtype: TypeAlias = Literal["float16", "float32"]
TOKEN_DTYPES: tuple[TokenDtype, ...] = ("float16", "float32")


def written(text: str) -> str:
    r"""Return a string as the table holds it: itself, but for what PostgreSQL refuses.

    >>> written("日本"), written("a\x00b"), read(written("\x00\ud800")) == "\x00\ud800"
    ('日本', 'a\x01\x02\x02b', True)
    """
    return _ODD.sub(lambda found: _mark(found[0]), text)


def read(text: str) -> str:
    """Return the string that was ``written``."""
    return _WRITTEN.sub(lambda found: _marked(found[0]), text)


def key_of(id: str) -> bytes:
    """Return the SHA-256 of an id as the table holds it.

    It is what the unique index is over: PostgreSQL indexes no text of more than 2,700 bytes.
    """
    return hashlib.sha256(written(id).encode()).digest()


def json_written(value: Any) -> str:
    """Return a JSON value as text, to be read back as it is."""
    return written(json.dumps(value, ensure_ascii=False))


def json_read(text: str) -> Any:
    """Return the value that was ``json_written``."""
    return json.loads(read(text))


def comparable(value: Any) -> Any:
    """Return a JSON value as JSONB can hold and compare it.

    >>> comparable({"a": [1.5, 1e23, True, None]})
    {'a': [1.5, 99999999999999991611392, True, None]}
    """
    if isinstance(value, str):
        return written(value)
    if isinstance(value, Mapping):
        return {written(key): comparable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(part) for part in value]
    if value is None or isinstance(value, bool):
        return value
    return number(value)


def number(value: Real) -> int | float:
    """Return a number whose decimal has Python's place among all integers and floats.

    >>> number(0.1), number(1e23), number(True)
    (0.1, 99999999999999991611392, 1)
    """
    if isinstance(value, Integral):
        return int(value)
    real = float(value)
    return int(real) if _EXACT <= abs(real) < float("inf") else real


def folded(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields whose strings ``str.casefold`` changes, folded; None where none is.

    Of a list its strings alone.

    >>> folded({"title": "Straße", "lang": "de", "tags": ["A", 1]})
    {'title': 'strasse', 'tags': ['a']}
    """
    changed: dict[str, Any] = {}
    for key, value in metadata.items():
        if isinstance(value, str) and value.casefold() != value:
            changed[key] = value.casefold()
        elif isinstance(value, list):
            strings = [part for part in value if isinstance(part, str)]
            lowered = [part.casefold() for part in strings]
            if lowered != strings:
                changed[key] = lowered
    return changed or None


def _mark(character: str) -> str:
    code = ord(character)
    if code <= 5:
        return "\x01" + _number_as_digits(code, 2)
    return "\ud7ff" + _number_as_digits(code - 0xD7FF, 6)


def _marked(mark: str) -> str:
    code = 0
    for digit in mark[1:]:
        code = 4 * code + _DIGITS.index(digit)
    return chr(code if mark[0] == "\x01" else code + 0xD7FF)


def _number_as_digits(code: int, count: int) -> str:
    return "".join(_DIGITS[code >> 2 * place & 3] for place in reversed(range(count)))
