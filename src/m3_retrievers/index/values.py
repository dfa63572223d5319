"""What metadata and filters may hold: values that JSON can write, nested within reason."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

# Copying, writing and comparing go down a value by recursion; Python's own limit is 1,000.
DEEPEST = 100
# An integer of up to 4,300 digits, the most that Python writes or reads.
_BITS = 14_285


def shown(value: object, *, most: int = 80) -> str:
    """Return a value as a message shows it: cut, and never an error of its own.

    >>> shown("abc"), shown([1] * 100, most=12), shown(10**5000)
    ("'abc'", '[1, 1, 1,...', 'an int that is too large to be written')
    """
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deep to be written"
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return f"an {type(value).__name__} that is too large to be written"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def fault_of(value: Any, *, depth: int = 0) -> str | None:
    """Return what keeps a value from being walked and looked up; None where nothing does.

    That is: nesting of more than ``DEEPEST`` levels, ``depth`` of which are around the value,
    and a mapping with a key that is no string. Other values are not judged.

    >>> fault_of({"a": [{"b": 1}]}), fault_of({"a": {1: 2}})
    (None, 'the key 1, which is no string')
    """
    waiting = [(value, depth)]
    while waiting:
        part, around = waiting.pop()
        if not isinstance(part, Mapping | list | tuple):
            continue
        if around == DEEPEST:
            return f"more than {DEEPEST} levels of nesting"
        if isinstance(part, Mapping):
            for key in part:
                if not isinstance(key, str):
                    return f"the key {shown(key)}, which is no string"
            part = list(part.values())
        waiting += [(one, around + 1) for one in part]
    return None


def no_value(value: Any) -> str | None:
    """Return the part of a value that no JSON holds, as a message shows it; None if all is well.

    Every real number is taken, numpy's too, and so are the infinities, as bounds. For values
    that have passed ``fault_of``.

    >>> no_value([1, {"a": float("inf")}]), no_value([1, float("nan")])
    (None, 'nan')
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return next(filter(None, map(no_value, value)), None)
    if value is None or isinstance(value, bool | str):
        return None
    huge = isinstance(value, int) and value.bit_length() > _BITS
    return None if isinstance(value, Real) and value == value and not huge else shown(value)
