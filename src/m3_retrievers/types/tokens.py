"""A text as a model read it: its tokens, and which of them each ColBERT vector belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from m3_retrievers.types.packed import TokenWeight


@dataclass(frozen=True, slots=True)
class TokenView:
    """The tokens of one text, in order, as far as the model read it.

    tokens: with character spans of the text; a token that stands for none of its characters (of
    a query instruction) has the span 0-0. unseen: how many tokens were cut off.
    vector_tokens: for each ColBERT vector the place of its token in ``tokens``, None for a
    special token. vector_labels: the spelling of each of these, special tokens included.
    """

    tokens: tuple[TokenWeight, ...]
    unseen: int = 0
    vector_tokens: tuple[int | None, ...] = ()
    vector_labels: tuple[str, ...] = ()
