"""Texts to terms for BM25: words and bigrams, stems, the encoder's own tokens.

Each is a callable ``str -> list[str]`` with ``state()``, a JSON record from which
``from_state`` makes its equal. ``as_tokenizer`` takes their short names too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from m3_retrievers.checks import require_package
from m3_retrievers.errors import InputError
from m3_retrievers.lexical.folding import Span, fold, folded, unspaced, words

State: TypeAlias = dict[str, Any]

# Lucene's classic English stop list.
_ENGLISH = """
    a an and are as at be but by for if in into is it no not of on or such that the their then
    there these they this to was will with
"""
ENGLISH_STOP_WORDS = frozenset(_ENGLISH.split())

_ASCII_WORDS = re.compile(r"\w{2,}")
_SURROGATES = re.compile("[\ud800-\udfff]")


class Tokenizer(Protocol):
    """What BM25 asks of a tokenizer; ``state`` is needed only to save."""

    def __call__(self, text: str) -> list[str]: ...

    def state(self) -> State: ...


@runtime_checkable
class SpanTokenizer(Protocol):
    """A tokenizer that also knows where its terms stand, for explanations."""

    def spans(self, text: str) -> list[tuple[str, int, int]]:
        """Return each term with the characters ``text[start:end]`` that it was made of."""
        ...


class WordTokenizer:
    r"""Words of two or more letters, marks, digits or underscores, NFKC and case-folded.

    As ``\b\w\w+\b``, but a combining mark belongs to its word, so that Hindi stays whole. Where
    a script has no spaces (Han, kana, Thai, Lao, Khmer, Myanmar), a run of it gives its
    overlapping pairs of characters, and a character alone gives itself.

    stop_words: None, ``"en"`` for the classic English list, or the words to leave out.
    language: None for words as they are written, or the language to stem them in, one of
    Snowball's: ``"german"`` or ``"de"``. bigrams: False takes a run without spaces for one word.

    Raises InputError for other stop words and a language that has no stemmer, MissingExtraError
    where PyStemmer is not installed.

    >>> WordTokenizer("en")("The STRASSE is a straße, isn't it?")
    ['strasse', 'strasse', 'isn']
    >>> WordTokenizer()("BGE-M3模型:東京タワー、水 हिन्दी में")
    ['bge', 'm3', '模型', '東京', '京タ', 'タワ', 'ワー', '水', 'हिन्दी', 'में']
    >>> WordTokenizer(language="german")("Häuser am Hafen, ein Haus")
    ['haus', 'am', 'haf', 'ein', 'haus']
    """

    def __init__(
        self,
        stop_words: Literal["en"] | Collection[str] | None = None,
        *,
        language: str | None = None,
        bigrams: bool = True,
    ) -> None:
        self.stop_words = _stop_list(stop_words)
        self.language = None if language is None else _stemmed_language(language)
        self.bigrams = bigrams

    def __repr__(self) -> str:
        told = {key: value for key, value in self.state().items() if key != "kind"}
        return f"WordTokenizer({', '.join(f'{key}={value!r}' for key, value in told.items())})"

    def __call__(self, text: str) -> list[str]:
        spelled = fold(text)
        if spelled.isascii():  # no marks and no runs: three times as fast
            found = _ASCII_WORDS.findall(spelled)
        elif not self.bigrams or unspaced().search(spelled) is None:
            found = words().findall(spelled)
        else:
            found = [spelled[start:end] for start, end in self._places(spelled)]
        if self.stop_words:
            found = [word for word in found if word not in self.stop_words]
        return self._stems(found)

    def spans(self, text: str) -> list[tuple[str, int, int]]:
        """Return the terms in order, each with the span ``text[start:end]`` it was made of.

        >>> WordTokenizer(language="english").spans("Pages, a page")
        [('page', 0, 5), ('page', 9, 13)]
        """
        spelled, origin = folded(text)
        places = [
            (start, end)
            for start, end in self._places(spelled)
            if spelled[start:end] not in self.stop_words
        ]
        terms = self._stems([spelled[start:end] for start, end in places])
        return [
            (term, origin[start][0], origin[end - 1][1])
            for term, (start, end) in zip(terms, places, strict=True)
        ]

    def state(self) -> State:
        english = self.stop_words == ENGLISH_STOP_WORDS
        return {
            "kind": "word",
            "stop_words": "en" if english else sorted(self.stop_words),
            "language": self.language,
            "bigrams": self.bigrams,
        }

    def _places(self, spelled: str) -> list[Span]:
        """Return where words and bigrams stand in a folded text."""
        word, places, at = words(), [], 0
        for run in unspaced().finditer(spelled) if self.bigrams else ():
            start, end = run.span()
            places += [match.span() for match in word.finditer(spelled, at, start)]
            places += [(i, min(i + 2, end)) for i in range(start, max(start + 1, end - 1))]
            at = end
        places += [match.span() for match in word.finditer(spelled, at)]
        return places

    def _stems(self, terms: list[str]) -> list[str]:
        if self.language is None:
            return terms
        return [_stem(term, self.language) for term in terms]


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


def as_tokenizer(value: object = None) -> Callable[[str], list[str]]:
    """Return the tokenizer that a short name or an object stands for.

    value: None or ``"word"`` (``"bigram"`` is the same) for ``WordTokenizer()``; a language of
    Snowball's, ``"german"`` or ``"de"``, for its stems; a transformers tokenizer for its tokens;
    any callable ``str -> list[str]`` is taken as it is.

    Raises InputError for anything else, MissingExtraError for a language without PyStemmer.

    >>> as_tokenizer("english")("Cycling and bicycles")
    ['cycl', 'and', 'bicycl']
    """
    if value is None or value in ("word", "bigram"):
        return WordTokenizer()
    if isinstance(value, str):
        return WordTokenizer(language=value)
    if hasattr(value, "convert_ids_to_tokens") and hasattr(value, "all_special_ids"):
        return SubwordTokenizer(value)
    is_class = isinstance(value, type) and issubclass(value, WordTokenizer | SubwordTokenizer)
    if not callable(value) or is_class:
        raise InputError(
            "tokenizer expects 'word', a language such as 'german', a transformers tokenizer or a "
            f"callable that splits a text into a list of words, got {value!r:.80}."
            + (" Make one of it: add (…)." if is_class else "")
        )
    return value


def from_state(state: Mapping[str, Any], *, subword: Any = None) -> Tokenizer:
    """Return the tokenizer that ``state()`` described.

    subword: the encoder's transformers tokenizer, needed for a SubwordTokenizer only.

    Raises InputError for an unknown kind, or where ``subword`` is needed and missing,
    MissingExtraError for stems without PyStemmer.

    >>> from_state({"kind": "word", "stop_words": "en", "language": None})("The page")
    ['page']
    """
    kind = state.get("kind")
    if kind == "subword" and subword is None:
        raise InputError(
            "This BM25 counts the encoder's own tokens and expects its tokenizer, got none. "
            "Pass subword=encoder.tokenizer."
        )
    makers: dict[object, Callable[[], Tokenizer]] = {
        "word": lambda: WordTokenizer(
            state.get("stop_words"),
            language=state.get("language"),
            # version 0.1 wrote no such key, and took a run without spaces for one word
            bigrams=state.get("bigrams", False),
        ),
        "bigram": WordTokenizer,  # a class of its own in version 0.1
        "subword": lambda: SubwordTokenizer(subword),
    }
    if kind not in makers:
        raise InputError(
            f"A tokenizer's state expects a kind of {sorted(map(str, makers))}, got {kind!r}. "
            "Rebuild the index with one of this package's tokenizers."
        )
    return makers[kind]()


# Words repeat: a kept stem takes a tenth of the time of a new one, and 2**15 some 5 MB.
@lru_cache(maxsize=2**15)
def _stem(word: str, language: str) -> str:
    from Stemmer import Stemmer

    # one of this call's own, for a microsecond: threads must not share a stemmer
    stem: str = Stemmer(language, 0).stemWord(word)
    return stem


def _stop_list(stop_words: object) -> frozenset[str]:
    if stop_words is None:
        return frozenset()
    if stop_words == "en":
        return ENGLISH_STOP_WORDS
    if isinstance(stop_words, Collection) and not isinstance(stop_words, str):
        listed = list(stop_words)
        if all(isinstance(word, str) for word in listed):
            return frozenset(fold(word) for word in listed)
    raise InputError(
        f"stop_words expects None, 'en' or a collection of words, got {str(stop_words)[:80]!r}."
    )


def _stemmed_language(language: object) -> str:
    """Return the language as Snowball spells it."""
    if not isinstance(language, str):
        raise InputError(f"language expects a name such as 'german', got {language!r:.80}.")
    require_package(
        "PyStemmer", module="Stemmer", extra="stemming", purpose=f"Stemming ({language!r:.40})"
    )
    import Stemmer

    name = language.strip().lower()
    try:
        Stemmer.Stemmer(name, 0)
    except KeyError:
        known = Stemmer.algorithms()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"A tokenizer's name expects 'word' or a language that has a stemmer "
            f"({', '.join(known)}), got {language!r:.80}.{hint}"
        ) from None
    return name
