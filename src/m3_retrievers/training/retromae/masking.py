"""Masks for RetroMAE: whole words for the encoder, a pattern a row for the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Of the masked tokens, so many become the mask and so many a random token (BERT, 80/10/10).
_AS_MASK = 0.8
_AS_RANDOM = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """What masking must know of a tokenizer.

    continues: (v,) True for a piece that goes on with the word before it. mask_id: what a
    masked token becomes. ordinary: (w,) ids that a masked token may become at random.
    """

    continues: NDArray[np.bool_]
    mask_id: int
    ordinary: NDArray[np.int64]

    @classmethod
    def of(cls, tokenizer: Any, size: int) -> Vocabulary:
        """Return the facts of a tokenizer whose model has ``size`` embeddings.

        WordPiece marks what continues a word with ``##``, SentencePiece what begins one with
        ``▁``; where a vocabulary has neither, each piece is a word.
        """
        names = tokenizer.convert_ids_to_tokens(range(min(size, len(tokenizer))))
        surfaces = np.array([str(name) for name in names] + [""] * (size - len(names)))
        special = np.zeros(size, bool)
        special[list(tokenizer.all_special_ids)] = True
        special[len(names) :] = True
        begins, goes_on = np.char.startswith(surfaces, "▁"), np.char.startswith(surfaces, "##")
        continues = goes_on if goes_on.any() else ~begins & begins.any()
        return cls(continues & ~special, tokenizer.mask_token_id, np.flatnonzero(~special))


def mask_words(
    ids: NDArray[np.int64],
    vocabulary: Vocabulary,
    share: float,
    rng: np.random.Generator,
    *,
    frame: tuple[int, int],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the ids (t,) with about a share of their words masked, and which tokens those are.

    frame: how many special tokens stand before and after the text; they are never masked. At
    least one word is masked where there is one.
    """
    masked = np.zeros(len(ids), bool)
    first, last = frame[0], len(ids) - frame[1]
    begins = ~vocabulary.continues[ids[first:last]]
    begins[:1] = True
    word = np.cumsum(begins) - 1
    lengths = np.bincount(word)
    order = rng.permutation(len(lengths))
    # whole words until the share of tokens is reached; the last one may pass it or not
    reached = np.cumsum(lengths[order]) - lengths[order] / 2
    chosen = order[reached <= max(share * len(word), lengths[order[:1]].sum() / 2)]
    masked[first:last] = np.isin(word, chosen)
    draw = rng.random(len(ids))
    changed = ids.copy()
    changed[masked & (draw < _AS_MASK)] = vocabulary.mask_id
    at_random = masked & (draw >= _AS_MASK) & (draw < _AS_MASK + _AS_RANDOM)
    changed[at_random] = rng.choice(vocabulary.ordinary, size=int(at_random.sum()))
    return changed, masked


def visible_rows(present: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Return (b, l, l): which tokens each row of the decoder may look at.

    present: (b, l) True for tokens that are no padding. A row sees position 0, the sentence's
    vector, never its own token, and of the others all but a random ``share``, drawn anew for
    every row, so that each token is predicted from another view.
    """
    count, length = present.shape
    draw = torch.rand(count, length, length, generator=generator, device=present.device)
    seen = (draw >= share) & present[:, None, :]
    seen &= ~torch.eye(length, dtype=torch.bool, device=present.device)
    seen[:, :, 0] = True
    return seen
