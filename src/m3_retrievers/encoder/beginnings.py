"""Where a long text may be cut so that its first tokens stay exactly what they were.

A tokenizer that splits at white space reads every word by itself: what follows a word cannot
change its tokens. Of a text far over the limit, a beginning that ends before white space
therefore gives the same first tokens as the whole (a test compares both), and an 11 MB text
costs what its first 8192 tokens cost.
"""

from __future__ import annotations

import re
from typing import Any

# Characters a token stands for in running text: 3 to 5 for WordPiece and XLM-R. Reading twice as
# much at first makes a second reading rare; texts shorter than this are read whole, as ever.
_CHARACTERS_A_TOKEN = 10
_SHORTEST = 2_000
_GROWTH = 4
# How far back white space is looked for before more is read.
_WINDOW = 4_096

_SPACES = " \t\r\n"
# Unicode's Prepend characters (GraphemeBreakProperty, 16.0) form one grapheme with the space that
# follows; XLM-R's character map rewrites whole graphemes, so no cut is made after one.
_PREPENDED = (
    "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U000110bd\U000110cd\U000111c2\U000111c3"
    "\U000113d1\U0001193f\U00011941\U00011a3a\U00011a84-\U00011a89\U00011d46\U00011f02"
)
# From where it starts to the last end of a word: what is greedy goes back from the end.
_TO_LAST_WORD = re.compile(rf"(?s).*[^\s{_PREPENDED}](?=[{_SPACES}])")
# Ends of words after which a tokenizer might treat white space in its own way.
_ENDS = ("a", "1", "!", ".", "'", "河", "。")


def first_size(enough: int) -> int:
    """Return how many characters to read at first for ``enough`` tokens."""
    return max(_SHORTEST, _CHARACTERS_A_TOKEN * enough)


def beginning(text: str, size: int) -> str:
    """Return the text up to the last end of a word within about ``size`` characters.

    Reads further where there is none, in the end the whole text.

    >>> beginning("one two three four", 9), beginning("one", 9)
    ('one two', 'one')
    """
    while size < len(text):
        found = _TO_LAST_WORD.match(text, max(0, size - _WINDOW), size)
        if found is not None:
            return text[: found.end()]
        size *= _GROWTH
    return text


def longer(size: int) -> int:
    """Return the size to try when ``size`` characters held too few tokens."""
    return _GROWTH * size


def splits_at_white_space(backend: Any) -> bool:
    """Whether a tokenizer reads what stands before white space by itself.

    False for one without pre-tokenisation, which sees the text as a whole, for one that takes
    white space to the word before it, and for added tokens that contain white space.
    """
    splitter, normalizer = backend.pre_tokenizer, backend.normalizer
    if splitter is None:
        return False
    if any(re.search(r"\s", one.content) for one in backend.get_added_tokens_decoder().values()):
        return False

    def words(text: str) -> list[str]:
        read = text if normalizer is None else normalizer.normalize_str(text)
        return [word for word, _ in splitter.pre_tokenize_str(read)]

    for end in _ENDS:
        alone = words(end)
        for space in _SPACES:
            both = words(f"{end}{space}b")
            if both[: len(alone)] != alone or len(both) == len(alone):
                return False
    return True
