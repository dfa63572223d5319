"""A text as a model reads it, token by token, for explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from m3_retrievers.encoder.pieces import Tokens, cut, tokenize
from m3_retrievers.encoder.reading import Reader
from m3_retrievers.encoder.settings import Settings
from m3_retrievers.types.packed import TokenWeight
from m3_retrievers.types.tokens import TokenView


def view(
    model: Reader,
    text: str,
    seen: Sequence[TokenWeight],
    *,
    query: bool,
    settings: Settings,
    vectors: bool,
    end_vector: bool = True,
) -> TokenView:
    """Return the view of a text of which the tokens ``seen`` were read.

    vectors: whether each token has a ColBERT vector. end_vector: whether the tokens behind a
    text (EOS) have one, too.
    """
    unseen = unseen_tokens(model, text, len(seen), query=query, settings=settings)
    if not vectors:
        return TokenView(tuple(seen), unseen)
    labelled = _vectors(model, seen, query=query, settings=settings, end_vector=end_vector)
    return TokenView(tuple(seen), unseen, *labelled)


def tokens_of(tokens: Tokens, stop: int, weights: Mapping[int, float]) -> tuple[TokenWeight, ...]:
    """Return the first ``stop`` tokens of a text with the weights of their terms."""
    assert tokens.spans is not None
    spans, ids = tokens.spans[:stop].tolist(), tokens.ids[:stop].tolist()
    return tuple(
        TokenWeight(id, surface, start, end, weights.get(id, 0.0))
        for id, surface, (start, end) in zip(ids, tokens.surfaces[:stop], spans, strict=True)
    )


def unseen_tokens(model: Reader, text: str, seen: int, *, query: bool, settings: Settings) -> int:
    """Return how many of a text's tokens were cut off, if ``seen`` were read."""
    instruction = settings.query_instruction if query else ""
    return len(tokenize(model.tokenizer, [instruction + text])[0].ids) - seen


def _vectors(
    model: Reader,
    seen: Sequence[TokenWeight],
    *,
    query: bool,
    settings: Settings,
    end_vector: bool,
) -> tuple[tuple[int | None, ...], tuple[str, ...]]:
    """Return each ColBERT vector's token, None for a special one, and its spelling."""
    limit = settings.query_max_length if query else settings.document_max_length
    # what was seen fits: one piece where the rest was cut off, else the encoder's own windows
    pieces = cut(
        [Tokens(np.array([token.id for token in seen], np.int64))],
        model.frame,
        max_length=min(limit, model.max_length),
        truncation="windows",
        mcls_every=None if query else settings.mcls_every,
    )
    spell = model.tokenizer.convert_ids_to_tokens
    # the first token of the frame, CLS, gives no vector, and neither does one among the text
    before = spell(list(model.frame.before[1:]))
    after = spell(list(model.frame.after)) if end_vector else []
    places: list[int | None] = []
    labels: list[str] = []
    for piece in pieces:
        inner = range(piece.start, piece.stop)
        places += [*[None] * len(before), *inner, *[None] * len(after)]
        labels += [*before, *(seen[at].surface for at in inner), *after]
    return tuple(places), tuple(labels)
