"""Spelling made one (NFKC, case-folded), and the patterns that take it apart.

``folded`` also says where each character of the result stood in the text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]

# Blocks of the scripts written without spaces; only their letters and marks count.
_UNSPACED_BLOCKS = (
    (0x3005, 0x3007),  # 々 and 〇 among CJK punctuation
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
    (0x3040, 0x309F),  # Hiragana
    (0x30A0, 0x30FF),  # Katakana
    (0x31F0, 0x31FF),
    (0x0E00, 0x0E7F),  # Thai
    (0x0E80, 0x0EFF),  # Lao
    (0x1780, 0x17FF),  # Khmer
    (0x1000, 0x109F),  # Myanmar
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
)
# No mark lies outside these: Unicode assigns none below U+0300, and above U+1EFFF only
# the variation selectors.
_MARK_BLOCKS = ((0x0300, 0x1EFFF), (0xE0100, 0xE01EF))
# Hangul's vowels and final consonants, which are no marks and still join what is before them.
_LATER_JAMO = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff]")


def fold(text: str) -> str:
    """Return the text as terms are spelled.

    NFKC joins a letter typed as base and accent, and full-width Latin, to the usual spelling.

    >>> fold("STRASSE, Straße, ＡＢＣ")
    'strasse, strasse, abc'
    """
    return unicodedata.normalize("NFKC", text).casefold()


def folded(text: str) -> tuple[str, list[Span]]:
    """Return ``fold(text)``, and for each of its characters the span it was made of.

    >>> folded("Maß")
    ('mass', [(0, 1), (1, 2), (2, 3), (2, 3)])
    """
    if text.isascii():
        return text.casefold(), [(at, at + 1) for at in range(len(text))]
    pieces: list[str] = []
    origin: list[Span] = []
    start = 0
    while start < len(text):
        end = start + 1
        while end < len(text) and _joins(text[end]):
            end += 1
        piece = fold(text[start:end])
        pieces.append(piece)
        origin += [(start, end)] * len(piece)
        start = end
    return "".join(pieces), origin


def _joins(character: str) -> bool:
    """Return whether NFKC may make one of this character and those before it."""
    first = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.category(first)[0] == "M" or _LATER_JAMO.match(first) is not None


@cache
def words() -> re.Pattern[str]:
    r"""Return the pattern of words: ``\b\w\w+\b``, but a mark belongs to its word."""
    marks = _character_class(_MARK_BLOCKS, ("M",))
    return re.compile(rf"[\w{marks}]{{2,}}")


@cache
def unspaced() -> re.Pattern[str]:
    """Return the pattern of runs in the scripts written without spaces."""
    # Nl: 〇; digits proper stay with the words
    letters = _character_class(_UNSPACED_BLOCKS, ("L", "M", "Nl"))
    return re.compile(f"[{letters}]+")


def _character_class(blocks: tuple[Span, ...], categories: tuple[str, ...]) -> str:
    """Return the inside of a regex class: the blocks' characters of these categories."""
    spans: list[list[int]] = []
    for first, last in blocks:
        for code in range(first, last + 1):
            if not unicodedata.category(chr(code)).startswith(categories):
                continue
            if spans and spans[-1][1] == code - 1:
                spans[-1][1] = code
            else:
                spans.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in spans)
