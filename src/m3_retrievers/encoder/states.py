"""A model's last hidden states, before pooling and heads: what other servers call embed_all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.encoder.forward import hidden_states as states_of
from m3_retrievers.encoder.forward import pack
from m3_retrievers.encoder.pieces import Piece
from m3_retrievers.encoder.reading import Reading, read_texts, run_pieces
from m3_retrievers.encoder.settings import choose_budget
from m3_retrievers.errors import InputError

_ONE_CLS = np.zeros(1, np.int64)


def hidden_states(
    encoder: M3Encoder, texts: Sequence[str | Sequence[int]]
) -> list[NDArray[np.float32]]:
    """Return (t, h) float32 for each text, special tokens included.

    texts: strings, read as documents; or token ids, special ones included, as they are.

    Raises InputError for ids the model does not have, and for a text that is read in windows.
    """
    model, settings = encoder.checkpoint, encoder.settings
    strings = [text for text in texts if isinstance(text, str)]
    reading = read_texts(model, strings, query=False, settings=settings, name=encoder.name)
    if len(reading.pieces) > len(reading.texts):
        raise InputError("expected texts that fit at once, got one that is read in windows.")
    read = iter([reading.pieces[row] for row in reading.given])
    pieces = [
        next(read)
        if isinstance(text, str)
        else _given(text, model.vocabulary_size, model.max_length)
        for text in texts
    ]
    found: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(pieces)

    def run(rows: NDArray[np.int64]) -> None:
        chosen = [pieces[row] for row in rows]
        batch = pack(chosen, device=encoder.device)
        parts = torch.split(states_of(model, batch).cpu(), list(batch.lengths))
        for row, states in zip(rows.tolist(), parts, strict=True):
            found[row] = states.numpy().copy()

    whole = Reading([""] * len(pieces), [], pieces, np.zeros(0, bool), np.arange(len(pieces)))
    budget = choose_budget(settings.batch_tokens, encoder.device)
    run_pieces(whole, run, budget=budget, padded=not model.is_packed, done=lambda _: None)
    return found


def _given(ids: Sequence[int], vocabulary_size: int, most: int) -> Piece:
    whole = all(type(id) is int and 0 <= id < vocabulary_size for id in ids)
    if not whole or not 0 < len(ids) <= most:
        raise InputError(
            f"token ids expect 1 to {most} integers below {vocabulary_size}, got {str(ids)[:60]}. "
            "Tokenize with this model's tokenizer, or send text."
        )
    return Piece(0, np.asarray(ids, np.int64), _ONE_CLS, 0, len(ids))
