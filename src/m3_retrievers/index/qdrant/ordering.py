"""Strings in an order, for an engine that orders numbers alone.

A string is written in base 257, a digit a byte of its UTF-8 and 0 for its end, six digits a
number: up to 257^6 < 2^53 a float64 holds every integer. Numbers compare one after the other as
the strings do, and UTF-8 compares as code points do. Five numbers hold 29 bytes and the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from m3_retrievers.index.qdrant.requests import Clause, Every, Nested, Some, Span

_DIGITS, _LEVELS = 6, 5


def levels(text: str) -> dict[str, float]:
    """Return a string's numbers, by level, up to the one with its end, at most five.

    >>> levels("")
    {'l0': 0.0}
    >>> levels("ab")["l0"] < levels("b")["l0"], len(levels("x" * 100))
    (True, 5)
    """
    digits = [byte + 1 for byte in text.encode("utf-8", "surrogatepass")[: _DIGITS * _LEVELS]]
    numbers = {}
    for level in range(min(_LEVELS, len(digits) // _DIGITS + 1)):
        part = digits[level * _DIGITS : (level + 1) * _DIGITS]
        number = 0
        for digit in (*part, *[0] * (_DIGITS - len(part))):
            number = number * 257 + digit
        numbers[f"l{level}"] = float(number)
    return numbers


def beyond(key: str, bound: str, *, after: bool) -> Clause | None:
    """Return that one of the strings under a key lies after a bound, or before it.

    None for a bound of 30 bytes or more: what begins as it does cannot be told apart.
    """
    if len(bound.encode("utf-8", "surrogatepass")) >= _DIGITS * _LEVELS:
        return None
    numbers = list(levels(bound).items())
    lies: Callable[[str, float], Clause] = (
        (lambda level, number: Span(level, gt=number))
        if after
        else (lambda level, number: Span(level, lt=number))
    )
    ways: list[Clause] = []
    for at, (level, number) in enumerate(numbers):
        same: Sequence[Clause] = [Span(name, gte=one, lte=one) for name, one in numbers[:at]]
        ways.append(Every((*same, lies(level, number))))
    return Nested(key, Some(tuple(ways)))
