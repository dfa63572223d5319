"""Texts to terms for BM25: Unicode words, character bigrams, the encoder's own tokens.

Each is a callable ``str -> list[str]`` with ``state()``, a JSON record from which
``from_state`` makes its equal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, Literal, Protocol, TypeAlias

from m3_retrievers.errors import InputError

State: TypeAlias = dict[str, Any]

# Lucene's classic English stop list.
_ENGLISH = """
    a an and are as at be but by for if in into is it no not of on or such that the their then
    there these they this to was will with
"""
ENGLISH_STOP_WORDS = frozenset(_ENGLISH.split())

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
_SURROGATES = re.compile("[\ud800-\udfff]")


class Tokenizer(Protocol):
    """What BM25 asks of a tokenizer; ``state`` is needed only to save."""

    def __call__(self, text: str) -> list[str]: ...

    def state(self) -> State: ...


class WordTokenizer:
    r"""Words of two or more letters, marks, digits or underscores, NFKC and case-folded.

    As ``\b\w\w+\b``, but a combining mark belongs to its word, so that Hindi stays whole.
    stop_words: None, ``"en"`` for the classic English list, or the words to leave out.

    >>> WordTokenizer("en")("The STRASSE is a straße, isn't it?")
    ['strasse', 'strasse', 'isn']
    >>> WordTokenizer()("हिन्दी में")
    ['हिन्दी', 'में']
    """

    def __init__(self, stop_words: Literal["en"] | Collection[str] | None = None) -> None:
        self.stop_words = _stop_list(stop_words)

    def __call__(self, text: str) -> list[str]:
        return [word for word in _words().findall(_fold(text)) if word not in self.stop_words]

    def state(self) -> State:
        english = self.stop_words == ENGLISH_STOP_WORDS
        return {"kind": "word", "stop_words": "en" if english else sorted(self.stop_words)}


class BigramTokenizer:
    """Overlapping character pairs where a script has no spaces, words elsewhere.

    Runs of Han, Hiragana, Katakana, Thai, Lao, Khmer and Myanmar give pairs, a character
    alone gives itself; the rest goes the way of ``WordTokenizer``.

    >>> BigramTokenizer()("BGE-M3模型:東京タワー、水")
    ['bge', 'm3', '模型', '東京', '京タ', 'タワ', 'ワー', '水']
    """

    def __call__(self, text: str) -> list[str]:
        terms = []
        for place, piece in enumerate(_unspaced().split(_fold(text))):
            if place % 2 == 0:  # split by a group: every second piece is a run
                terms += _words().findall(piece)
            else:
                terms += [piece[i : i + 2] for i in range(max(1, len(piece) - 1))]
        return terms

    def state(self) -> State:
        return {"kind": "bigram"}


class SubwordTokenizer:
    """The encoder's own vocabulary, as in the BGE-M3 paper's "BM25, XLM-R tokens".

    tokenizer: the transformers one. Special tokens are left out, the unknown one among them,
    so that two unknown characters never match; texts of any length are read whole.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)

    def __call__(self, text: str) -> list[str]:
        # verbose=False: a text over the model's limit is no fault here, so no warning
        ids = self._tokenizer(
            _SURROGATES.sub("\ufffd", text),
            add_special_tokens=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        kept = [id for id in ids if id not in self._special]
        return list(self._tokenizer.convert_ids_to_tokens(kept))

    def state(self) -> State:
        return {"kind": "subword"}


def from_state(state: Mapping[str, Any], *, subword: Any = None) -> Tokenizer:
    """Return the tokenizer that ``state()`` described.

    subword: the encoder's transformers tokenizer, needed for a SubwordTokenizer only.

    Raises InputError for an unknown kind, or where ``subword`` is needed and missing.

    >>> from_state({"kind": "bigram"})("水")
    ['水']
    """
    kind = state.get("kind")
    if kind == "subword" and subword is None:
        raise InputError(
            "This BM25 counts the encoder's own tokens and expects its tokenizer, got none. "
            "Pass subword=encoder.tokenizer."
        )
    makers: dict[object, Callable[[], Tokenizer]] = {
        "word": lambda: WordTokenizer(state["stop_words"]),
        "bigram": BigramTokenizer,
        "subword": lambda: SubwordTokenizer(subword),
    }
    if kind not in makers:
        raise InputError(
            f"A tokenizer's state expects a kind of {sorted(map(str, makers))}, got {kind!r}. "
            "Rebuild the index with one of this package's tokenizers."
        )
    return makers[kind]()


def _stop_list(stop_words: object) -> frozenset[str]:
    if stop_words is None:
        return frozenset()
    if stop_words == "en":
        return ENGLISH_STOP_WORDS
    if isinstance(stop_words, Collection) and not isinstance(stop_words, str):
        words = list(stop_words)
        if all(isinstance(word, str) for word in words):
            return frozenset(_fold(word) for word in words)
    raise InputError(
        f"stop_words expects None, 'en' or a collection of words, got {str(stop_words)[:80]!r}."
    )


def _fold(text: str) -> str:
    # NFKC joins a letter typed as base and accent, and full-width Latin, to the usual spelling.
    return unicodedata.normalize("NFKC", text).casefold()


@cache
def _words() -> re.Pattern[str]:
    marks = _character_class(_MARK_BLOCKS, ("M",))
    return re.compile(rf"[\w{marks}]{{2,}}")


@cache
def _unspaced() -> re.Pattern[str]:
    # Nl: 〇; digits proper stay with the words
    letters = _character_class(_UNSPACED_BLOCKS, ("L", "M", "Nl"))
    return re.compile(f"([{letters}]+)")


def _character_class(blocks: tuple[tuple[int, int], ...], categories: tuple[str, ...]) -> str:
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
