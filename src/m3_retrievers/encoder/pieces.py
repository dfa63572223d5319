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
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import CheckpointError, TextTooLongError, TruncationWarning

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
    """The tokens of one text without its frame: ids (t,), spans (t, 2) when asked for."""

    ids: NDArray[np.int64]
    spans: NDArray[np.int64] | None = None
    surfaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One sequence for the backbone.

    text: row of the text it belongs to. ids (t,): frame and CLS included. heads: places of
    its CLS tokens, the first of them 0. start, stop: which of the text's tokens it holds.
    """

    text: int
    ids: NDArray[np.int64]
    heads: NDArray[np.int64]
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
    tokenizer: Any, texts: Sequence[str], *, instruction: str = "", spans: bool = False
) -> list[Tokens]:
    """Return the tokens of each text, uncut and unframed.

    instruction: put before each text; spans speak of the text alone, so the instruction's own
    tokens get the empty span 0-0. Lone surrogates, which no tokenizer accepts, become U+FFFD,
    one for one, so that character spans stay true.
    """
    backend = tokenizer.backend_tokenizer  # the wrapper keeps state a call, and is not thread-safe
    clean = [_SURROGATES.sub("\ufffd", instruction + text) for text in texts]
    if not spans:
        encoded = backend.encode_batch_fast(clean, add_special_tokens=False)
        return [Tokens(np.asarray(one.ids, np.int64)) for one in encoded]
    encoded = backend.encode_batch(clean, add_special_tokens=False)
    return [
        Tokens(
            np.asarray(one.ids, np.int64),
            np.maximum(np.asarray(one.offsets, np.int64).reshape(-1, 2) - len(instruction), 0),
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
) -> list[Piece]:
    """Return the pieces of all texts, in order, none longer than ``max_length`` tokens.

    max_length counts the frame and inserted CLS tokens. A longer text is cut, with one
    TruncationWarning a call that counts the texts (``"warn"``), refused with
    TextTooLongError (``"error"``), or split into consecutive pieces (``"windows"``).
    """
    room = _room(max_length - frame.size, mcls_every)
    long = [row for row, one in enumerate(tokens) if len(one.ids) > room]
    if long and truncation == "error":
        raise TextTooLongError(
            f"expected texts of at most {room} tokens, got {len(tokens[long[0]].ids)} at position "
            f"{long[0]} ({len(long)} texts are too long). Split them, raise the maximum length, "
            'or pass truncation="windows".'
        )
    if long and truncation == "warn":
        warnings.warn(
            f"{len(long)} of {len(tokens)} texts were cut to {room} tokens (the longest has "
            f"{max(len(tokens[row].ids) for row in long)}). Split them, raise the maximum length, "
            'or pass truncation="windows".',
            TruncationWarning,
            stacklevel=4,
        )
    pieces = []
    for row, one in enumerate(tokens):
        stops = range(0, max(1, len(one.ids)), room) if truncation == "windows" else (0,)
        for start in stops:
            content = one.ids[start : start + room]
            ids, heads = _framed(content, frame, mcls_every)
            pieces.append(Piece(row, ids, heads, start, start + len(content)))
    return pieces


def _room(size: int, mcls_every: int | None) -> int:
    """How many of ``size`` places are left for the text once CLS tokens are inserted."""
    if mcls_every is None:
        return size
    # the first CLS is part of the frame, so k segments need k - 1 more
    whole, rest = divmod(size + 1, mcls_every + 1)
    return whole * mcls_every + max(0, rest - 1)


def _framed(
    content: NDArray[np.int64], frame: Frame, mcls_every: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the full sequence (t,) and the places of its CLS tokens."""
    inner, heads = content, np.zeros(1, np.int64)
    if mcls_every is not None and len(content) > mcls_every:
        cuts = np.arange(mcls_every, len(content), mcls_every)
        inner = np.insert(content, cuts, frame.before[0])
        inserted = cuts + np.arange(len(cuts)) + len(frame.before)
        heads = np.concatenate([heads, inserted])
    return np.concatenate([frame.before, inner, frame.after]).astype(np.int64), heads
