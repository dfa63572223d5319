"""From blocks to passages of a bounded number of tokens, counted by the model's own tokenizer.

What counts is a function: the characters that each token of a text stands for. So this room
needs no model, and a passage is measured as the model that reads it will measure it.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeAlias

from m3_retrievers.corpora.blocks import Block
from m3_retrievers.errors import InputError

Spans: TypeAlias = Callable[[str], Sequence[tuple[int, int]]]

# Characters whose tokens are asked for at once: a file of one line of 11 MB takes linear time.
_AT_ONCE = 8_192
# So many characters count as a token at least: what a tokenizer reads as one unknown word, or
# passes over, would otherwise make a passage of any length.
_LONGEST_TOKEN = 100

_SPACE = re.compile(r"\s*")
# Where a line may be cut: after white space, and after marks that end a phrase without one.
_BETWEEN_WORDS = re.compile(r"\s+|[。！？；，、]+")
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n){2,}")
_LONG_SPACE = re.compile(r"[^\S\n]{200,}")


def words(text: str) -> list[tuple[int, int]]:
    """Return the characters of each word: how passages are measured without a tokenizer.

    >>> words("two words")
    [(0, 3), (4, 9)]
    """
    return [found.span() for found in re.finditer(r"\S+", text)]


@dataclass(frozen=True, slots=True)
class Passage:
    """A text of a bounded number of tokens, its first line (from 1), the title above."""

    text: str
    line: int
    title: str


@dataclass(frozen=True, slots=True)
class Splitter:
    """How long passages are.

    spans: returns the first character, and the one after the last, of each token of a text.
    size: tokens of a passage at most. overlap: tokens at the end of a passage that the next
    one under the same title begins with, about; they count within ``size``.

    Raises InputError for a size below 1 and an overlap that leaves no room for anything new.
    """

    spans: Spans = words
    size: int = 200
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"expected passages of at least 1 token, got {self.size}.")
        if not 0 <= self.overlap <= self.size // 2:
            raise InputError(
                f"overlap expects 0 to {self.size // 2}, half of a passage's {self.size} tokens, "
                f"got {self.overlap}. Choose a smaller one."
            )

    def split(self, text: str, blocks: Iterable[Block]) -> list[Passage]:
        r"""Return the passages of a text: neighbours under one title together, long ones cut.

        Cuts fall between lines, else between words, and within a word only where it is longer
        than a passage. No character but white space is lost.

        >>> lines = "one two\nthree four"
        >>> found = Splitter(size=3).split(lines, [Block(0, len(lines), "")])
        >>> [(passage.text, passage.line) for passage in found]
        [('one two', 1), ('three four', 2)]
        """
        measured = _Measured(text, self.spans)
        # a text by itself may have some tokens more than it has within its file
        room = max(1, self.size - self.overlap - self.size // 64)
        pieces = [piece for block in blocks for piece in measured.cut(block, room)]
        merged = measured.merged(pieces, room)
        found: list[Passage] = []
        for block in measured.overlapping(merged, self.overlap) if self.overlap else merged:
            found += self._fitting(measured, block)
        return found

    def _fitting(self, measured: _Measured, block: Block) -> Iterator[Passage]:
        """Yield a block as a passage, or, where it has too many tokens after all, its halves."""
        text, start = measured.tidy(block)
        tokens = measured.tokens(block.start, block.end)
        if tokens > 1 and len(self.spans(text)) > self.size:
            for half in measured.cut(block, -(-tokens // 2)):
                yield from self._fitting(measured, half)
        elif text:
            yield Passage(text, measured.line(start), block.title)


class _Measured:
    """A text with the places where its tokens and its lines begin."""

    def __init__(self, text: str, spans: Spans) -> None:
        self._text = text
        self._tokens = _token_starts(text, spans)
        self._lines = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]

    def tokens(self, start: int, end: int) -> int:
        return bisect_left(self._tokens, end) - bisect_left(self._tokens, start)

    def line(self, place: int) -> int:
        return bisect_right(self._lines, place)

    def cut(self, block: Block, room: int) -> Iterator[Block]:
        """Yield a block in pieces of at most ``room`` tokens."""
        start = self._content(block.start, block.end)
        while start < block.end:
            end = self._reach(start, block.end, room)
            yield Block(start, end, block.title)
            start = self._content(end, block.end)

    def merged(self, blocks: Iterable[Block], room: int) -> list[Block]:
        """Join neighbours under one title while they stay within ``room`` tokens."""
        merged: list[Block] = []
        for block in blocks:
            before = merged[-1] if merged and merged[-1].title == block.title else None
            if before and self.tokens(before.start, block.end) <= room:
                merged[-1] = Block(before.start, block.end, block.title)
            else:
                merged.append(block)
        return merged

    def overlapping(self, blocks: Sequence[Block], overlap: int) -> list[Block]:
        """Let each block begin with the last ``overlap`` tokens of the one before, or fewer."""
        longer = list(blocks[:1])
        for before, block in pairwise(blocks):
            start = block.start
            if before.title == block.title:
                at = bisect_left(self._tokens, block.start) - overlap
                start = max(before.start, self._tokens[max(0, at)])
                if start > 0 and not self._text[start - 1].isspace():
                    between = _BETWEEN_WORDS.search(self._text, start, block.start)
                    start = between.end() if between else start
            longer.append(Block(start, block.end, block.title))
        return longer

    def tidy(self, block: Block) -> tuple[str, int]:
        """Return a block's text without needless white space, and where it begins."""
        start = self._content(block.start, block.end)
        text = self._text[start : block.end].rstrip()
        return _LONG_SPACE.sub(" ", _BLANK_LINES.sub("\n\n", text)), start

    def _content(self, start: int, end: int) -> int:
        """Return where text begins from ``start`` on: a line's indentation belongs to it."""
        found = _SPACE.match(self._text, start, end)
        first = found.end() if found else start
        line = self._text.rfind("\n", start, first) + 1
        at_line = start == 0 or self._text[start - 1] == "\n"
        return first if first >= end else line or (start if at_line else first)

    def _reach(self, start: int, end: int, room: int) -> int:
        """Return how far ``room`` tokens from ``start`` go: to a line's end, else a word's."""
        at = bisect_left(self._tokens, start) + room
        while at < len(self._tokens) and self._tokens[at] <= start:
            at += 1  # several tokens can stand for one character
        limit = self._tokens[at] if at < len(self._tokens) else end
        if limit >= end:
            return end
        line = self._text.rfind("\n", start, limit) + 1
        if line > start:
            return line
        between = [one.end() for one in _BETWEEN_WORDS.finditer(self._text, start, limit)]
        return between[-1] if between else limit


def _token_starts(text: str, spans: Spans) -> list[int]:
    starts: list[int] = []
    for first, last in _slices(text):
        starts += [first + start for start, _ in spans(text[first:last])]
    filled: list[int] = []
    before = 0
    for start in [*sorted(starts), len(text)]:
        filled += range(before + _LONGEST_TOKEN, start, _LONGEST_TOKEN)
        filled.append(start)
        before = start
    return filled[:-1]


def _slices(text: str) -> Iterator[tuple[int, int]]:
    """Yield the stretches of a text that are tokenized at once, which end between words."""
    start = 0
    while start < len(text):
        end = min(start + _AT_ONCE, len(text))
        if end < len(text):
            end = (text.rfind("\n", start, end) + 1) or (text.rfind(" ", start, end) + 1) or end
        yield start, end
        start = end
