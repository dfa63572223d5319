"""Texts in a language the model cannot read: found, said once a call, and matching nothing.

A tokenizer turns what its vocabulary lacks into one unknown token. Texts of nothing else all
look alike to the model, and would match each other and every query equally well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.encoder.pieces import tokenize
from m3_retrievers.errors import UnknownTokenWarning, warn

# Of m3-mini's tokens, unknown are: 5 in a million of Python's own library, 2 % of C++ with Greek
# letters, 6 % of formulas, 7 % of Hindi, 18 % of a sentence with three emoji; 21 % of Japanese,
# 38 % of Tamil, 69 to 83 % of Chinese, 90 % of Telugu, all of Thai and Amharic. From a fifth on
# the missing words carry the meaning.
HIGH_SHARE = 0.2
# One emoji in a query of three words is a large share and means nothing.
_FEWEST = 3

_READS_MORE = "'m3-mini-multilingual' or 'BAAI/bge-m3'"


class _Vocabulary(Protocol):
    @property
    def tokenizer(self) -> Any: ...
    @property
    def unknown_id(self) -> int | None: ...
    @property
    def blank_ids(self) -> tuple[int, ...]: ...


def find_unread(
    model: _Vocabulary,
    read: Sequence[NDArray[np.int64]],
    *,
    given: NDArray[np.int64],
    instruction: str = "",
    name: str,
) -> NDArray[np.bool_]:
    """Return (n,) True for each text whose tokens are all unknown; a text without tokens is not.

    Gives one UnknownTokenWarning where there is such a text, or where the share of unknown
    tokens in the call reaches HIGH_SHARE.

    read: the token ids of each text, as far as the model reads it. given: the row in ``read``
    of each text of the call. instruction: what stands before each text and is none of its own.
    name: the model's.
    """
    unread = np.zeros(len(read), bool)
    if model.unknown_id is None:
        return unread
    counts = np.array([np.count_nonzero(ids == model.unknown_id) for ids in read])
    if not counts.any():
        return unread
    skipped = len(tokenize(model.tokenizer, [instruction])[0].ids) if instruction else 0
    # the bare mark of a word's beginning (XLM-R's ▁) says nothing about the word
    own = [ids[skipped:] for ids in read]
    owners = np.repeat(np.arange(len(read)), [len(ids) for ids in own])
    blank = np.isin(np.concatenate(own), model.blank_ids)
    marks = np.bincount(owners[blank], minlength=len(read))
    sizes = np.array([len(ids) - skipped for ids in read]) - marks
    unread[:] = (counts > 0) & (counts >= sizes)
    unknown, lost = int(counts[given].sum()), int(unread[given].sum())
    share = unknown / max(1, sizes[given].sum())
    if lost or (share >= HIGH_SHARE and unknown >= _FEWEST):
        nothing = f", and nothing at all of {lost} of them, which match nothing" if lost else ""
        warn(
            f"{name!r} does not know {min(share, 1):.0%} of the tokens in {len(given)} "
            f"text{'s' * (len(given) > 1)}{nothing}. Use a model that reads their language, such "
            f"as {_READS_MORE}.",
            UnknownTokenWarning,
        )
    return unread
