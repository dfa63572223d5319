"""From texts to the token sequences that enter the backbone.

A text becomes one *piece* (its tokens framed by CLS and SEP), or several with
``truncation="windows"``. Every choice about length is made here, once, so the forward
pass only ever sees sequences that fit.

MCLS (multiple CLS, paper section 3.4 and appendix): with ``mcls_every`` a CLS stands
before every so many tokens of a document. The paper leaves three things open; here
positions run on through the inserted tokens, one SEP ends the whole sequence, and the
inserted CLS tokens are seen by attention and pooling only: they give neither a term
weight nor a ColBERT vector. A document of at most ``mcls_every`` tokens is unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.encoder import beginnings
from m3_retrievers.errors import CheckpointError, TextTooLongError, TruncationWarning, warn

Truncation: TypeAlias = Literal["warn", "error", "windows"]
TRUNCATIONS: tuple[Truncation, ...] = ("warn", "error", "windows")

_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Frame:
    """The special tokens around a text: ids before (CLS) and after (SEP)."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.before) + len(self.after)


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The tokens of one text without its frame: ids (t,), spans (t, 2) when asked for.

    whole: False where the text goes on beyond what was read, because its limit was reached.
    """

    ids: NDArray[np.int64]
    spans: NDArray[np.int64] | None = None
    surfaces: tuple[str, ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One sequence for the backbone.

    text: row of the text it belongs to. ids (t,): frame and CLS included. cls_places:
    where its CLS tokens stand, the first at 0. start, stop: which of the text's tokens it holds.
    """

    text: int
    ids: NDArray[np.int64]
    cls_places: NDArray[np.int64]
    start: int
    stop: int


def find_frame(tokenizer: Any) -> Frame:
    """Return the special tokens a tokenizer puts around one text, found by asking it."""
    backend = tokenizer.backend_tokenizer
    bare = backend.encode("a", add_special_tokens=False).ids
    framed = backend.encode("a").ids
    at = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), None)
    if at is None or at == 0:
        raise CheckpointError(
            "The tokenizer is expected to put a CLS token before a text, and does not. "
            "Use a tokenizer.json with a template post-processor."
        )
    return Frame(tuple(framed[:at]), tuple(framed[at + len(bare) :]))


def tokenize(
    tokenizer: Any,
    texts: Sequence[str],
    *,
    instruction: str = "",
    spans: bool = False,
    enough: int | None = None,
) -> list[Tokens]:
    """Return the tokens of each text, uncut and unframed.

    instruction: put before each text; spans speak of the text alone, so the instruction's own
    tokens get the empty span 0-0. Lone surrogates, which no tokenizer accepts, become U+FFFD,
    one for one, so that character spans stay true.
    enough: how many tokens a text may have before the rest does not matter; None is all. Of a
    text that is far longer only a beginning is read, with more tokens than ``enough``.
    """
    backend = tokenizer.backend_tokenizer  # the wrapper keeps state a call, and is not thread-safe
    full = [instruction + text for text in texts]
    size = None if enough is None else beginnings.first_size(enough)
    if size is None or all(len(text) <= size for text in full):
        return _encode(backend, full, len(instruction), spans=spans)
    assert enough is not None
    if not beginnings.splits_at_white_space(backend):
        return _encode(backend, full, len(instruction), spans=spans)
    found: dict[int, Tokens] = {}
    left = list(range(len(full)))
    while left:
        read = [beginnings.beginning(full[row], size) for row in left]
        encoded = _encode(backend, read, len(instruction), spans=spans)
        for row, text, one in zip(left, read, encoded, strict=True):
            whole = len(text) == len(full[row])
            if whole or len(one.ids) > enough:
                found[row] = replace(one, whole=whole)
        left = [row for row in left if row not in found]
        size = beginnings.longer(size)
    return [found[row] for row in range(len(full))]


def without_surrogates(text: str) -> str:
    """Return the text with U+FFFD for each lone surrogate, which no tokenizer accepts."""
    return _SURROGATES.sub("\ufffd", text)


def _encode(backend: Any, texts: Sequence[str], skipped: int, *, spans: bool) -> list[Tokens]:
    """Return the tokens of whole texts; spans count from the character ``skipped`` on."""
    clean = [without_surrogates(text) for text in texts]
    if not spans:
        encoded = backend.encode_batch_fast(clean, add_special_tokens=False)
        return [Tokens(np.asarray(one.ids, np.int64)) for one in encoded]
    encoded = backend.encode_batch(clean, add_special_tokens=False)
    return [
        Tokens(
            np.asarray(one.ids, np.int64),
            np.maximum(np.asarray(one.offsets, np.int64).reshape(-1, 2) - skipped, 0),
            tuple(one.tokens),
        )
        for one in encoded
    ]


def cut(
    tokens: Sequence[Tokens],
    frame: Frame,
    *,
    max_length: int,
    truncation: Truncation,
    mcls_every: int | None = None,
    given: NDArray[np.int64] | None = None,
) -> list[Piece]:
    """Return the pieces of all texts, in order, none longer than ``max_length`` tokens.

    max_length counts the frame and inserted CLS tokens. A longer text is cut, with one
    TruncationWarning a call that counts the texts (``"warn"``), refused with
    TextTooLongError (``"error"``), or split into consecutive pieces (``"windows"``).
    given: the row in ``tokens`` of each text of the call, where some were given twice; None
    says that each was given once.
    """
    room = text_room(frame, max_length=max_length, mcls_every=mcls_every)
    if truncation != "windows":
        _check_lengths(tokens, room, given, refuse=truncation == "error")
    pieces = []
    for row, one in enumerate(tokens):
        stops = range(0, max(1, len(one.ids)), room) if truncation == "windows" else (0,)
        for start in stops:
            content = one.ids[start : start + room]
            ids, cls_places = _framed(content, frame, mcls_every)
            pieces.append(Piece(row, ids, cls_places, start, start + len(content)))
    return pieces


def text_room(frame: Frame, *, max_length: int, mcls_every: int | None = None) -> int:
    """Return how many of ``max_length`` places are left for a text's own tokens."""
    size = max_length - frame.size
    if mcls_every is None:
        return size
    # the first CLS is part of the frame, so k segments need k - 1 more
    whole, rest = divmod(size + 1, mcls_every + 1)
    return whole * mcls_every + max(0, rest - 1)


def _check_lengths(
    tokens: Sequence[Tokens], room: int, given: NDArray[np.int64] | None, *, refuse: bool
) -> None:
    """Warn of the texts that are over the limit, or refuse them, counted as they were given."""
    long = [row for row, one in enumerate(tokens) if len(one.ids) > room]
    if not long:
        return
    rows = np.arange(len(tokens)) if given is None else given
    at = np.flatnonzero(np.isin(rows, long))
    if refuse:
        raise TextTooLongError(
            f"expected texts of at most {room} tokens, got {_length([tokens[rows[at[0]]]])} at "
            f"position {at[0]} ({len(at)} texts are too long). Split them, raise the maximum "
            'length, or pass truncation="windows".'
        )
    warn(
        f"{len(at)} of {len(rows)} texts were cut to {room} tokens (the longest has "
        f"{_length([tokens[row] for row in long])}). Split them, raise the maximum length, "
        'or pass truncation="windows".',
        TruncationWarning,
    )


def _length(tokens: Sequence[Tokens]) -> str:
    """Return the largest number of tokens, as far as they were counted."""
    most = max(len(one.ids) for one in tokens)
    return f"{most}" if all(one.whole for one in tokens) else f"at least {most}"


def _framed(
    content: NDArray[np.int64], frame: Frame, mcls_every: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the full sequence (t,) and the places of its CLS tokens."""
    inner, cls_places = content, np.zeros(1, np.int64)
    if mcls_every is not None and len(content) > mcls_every:
        cuts = np.arange(mcls_every, len(content), mcls_every)
        inner = np.insert(content, cuts, frame.before[0])
        inserted = cuts + np.arange(len(cuts)) + len(frame.before)
        cls_places = np.concatenate([cls_places, inserted])
    return np.concatenate([frame.before, inner, frame.after]).astype(np.int64), cls_places
