"""Texts on their way into a model: tokenized once each, cut into pieces, run in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from m3_retrievers.encoder.batching import run_batches
from m3_retrievers.encoder.distinct import distinct_texts
from m3_retrievers.encoder.pieces import Frame, Piece, Tokens, cut, text_room, tokenize
from m3_retrievers.encoder.recent import Recent
from m3_retrievers.encoder.settings import Settings
from m3_retrievers.encoder.unknown import find_unread
from m3_retrievers.types.representations import Output, Representations


class Reader(Protocol):
    """What reading texts asks of a loaded model; see ``checkpoint.Checkpoint``."""

    @property
    def tokenizer(self) -> Any: ...
    @property
    def frame(self) -> Frame: ...
    @property
    def max_length(self) -> int: ...
    @property
    def unknown_id(self) -> int | None: ...
    @property
    def blank_ids(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Distinct texts as a model reads them.

    texts, tokens (d,): of no texts the empty one, for the widths. pieces: theirs, in order.
    unread (d,): True for a text of unknown tokens alone. given (n,): the place in texts of each
    text of the call.
    """

    texts: Sequence[str]
    tokens: Sequence[Tokens]
    pieces: Sequence[Piece]
    unread: NDArray[np.bool_]
    given: NDArray[np.int64]

    def only(self, places: Sequence[int]) -> Reading:
        """Return the reading of some of its texts."""
        at = {place: row for row, place in enumerate(places)}
        kept = np.array([at.get(place, -1) for place in self.given.tolist()], np.int64)
        return Reading(
            texts=[self.texts[place] for place in places],
            tokens=[self.tokens[place] for place in places],
            pieces=[
                replace(piece, text=at[piece.text]) for piece in self.pieces if piece.text in at
            ],
            unread=self.unread[list(places)],
            given=kept[kept >= 0],
        )


def read_texts(
    model: Reader,
    texts: Sequence[str],
    *,
    query: bool,
    settings: Settings,
    name: str,
    spans: bool = False,
) -> Reading:
    """Return the texts as they enter the model, each distinct one once.

    name: the model's, for what is said about texts it cannot read. spans: whether the tokens'
    places in the text are wanted. Warns and raises as ``pieces.cut`` and ``find_unread`` do.
    """
    different, given = distinct_texts(texts)
    limit = settings.query_max_length if query else settings.document_max_length
    max_length = min(limit, model.max_length)
    mcls_every = None if query else settings.mcls_every
    room = text_room(model.frame, max_length=max_length, mcls_every=mcls_every)
    instruction = settings.query_instruction if query else ""
    tokens = tokenize(
        model.tokenizer,
        different or [""],
        instruction=instruction,
        spans=spans,
        enough=None if settings.truncation == "windows" else room,
    )
    pieces = cut(
        tokens,
        model.frame,
        max_length=max_length,
        truncation=settings.truncation,
        mcls_every=mcls_every,
        given=given,
    )
    stops = {piece.text: piece.stop for piece in pieces}  # pieces of a text come in order
    read = [one.ids[: stops[row]] for row, one in enumerate(tokens)]
    unread = find_unread(model, read, given=given, instruction=instruction, name=name)
    return Reading(different or [""], tokens, pieces, unread, given)


def token_counts(reading: Reading) -> NDArray[np.int64]:
    """Return (n,) how many tokens of each text of the call enter the model, frames included."""
    counts = np.zeros(len(reading.texts), np.int64)
    for piece in reading.pieces:
        counts[piece.text] += len(piece.ids)
    return counts[reading.given]


def run_pieces(
    reading: Reading,
    run: Callable[[NDArray[np.int64]], None],
    *,
    budget: int,
    padded: bool,
    done: Callable[[int], object],
) -> None:
    """Call ``run`` with the pieces of each batch, by their places, without gradients.

    budget: tokens of a batch; padded: with its padding. done: is told how many of the call's
    texts a batch finished.
    """
    lengths = np.array([len(piece.ids) for piece in reading.pieces], np.int64)
    copies = np.bincount(reading.given, minlength=len(reading.texts))
    # a text is counted as often as it was given, when its first piece is done
    counts = np.array([copies[p.text] if p.start == 0 else 0 for p in reading.pieces], np.int64)
    with torch.inference_mode():
        for rows in run_batches(lengths, run, budget=budget, padded=padded):
            done(int(counts[rows].sum()))


def encode_once(
    reading: Reading,
    compute: Callable[[Reading, tuple[Output, ...], Callable[[int], object]], Representations],
    *,
    query: bool,
    outputs: tuple[Output, ...],
    has: tuple[Output, ...],
    recent: Recent | None,
    show_progress: bool,
) -> Representations:
    """Return representations of a call's n texts: what is kept, and the rest from ``compute``.

    compute: makes these outputs of the texts of a reading, and tells how many of the call's it
    has done. has: the outputs of the model. Equal texts get equal bits.
    """
    with progress(total=len(reading.given), show=show_progress) as done:
        if recent is None or "tokens" in outputs or not len(reading.given):
            found = compute(reading, outputs, done)
        else:
            found = _completed(reading, compute, recent, query, outputs, has, done)
    return found if len(reading.given) == len(reading.texts) else found[reading.given]


def _completed(
    reading: Reading,
    compute: Callable[[Reading, tuple[Output, ...], Callable[[int], object]], Representations],
    recent: Recent,
    query: bool,
    outputs: tuple[Output, ...],
    has: tuple[Output, ...],
    done: Callable[[int], object],
) -> Representations:
    kept = recent.found(reading.texts, outputs, query=query)
    missing = [place for place in range(len(reading.texts)) if place not in kept]
    rows: dict[int, Representations] = dict(kept)
    if missing:
        part = reading.only(missing) if kept else reading
        done(len(reading.given) - len(part.given))
        made = compute(part, recent.worth_computing(outputs, has=has, query=query), done)
        recent.take(part.texts, made, query=query)
        asked = made.select(outputs)
        if not kept:  # the common case, without taking rows apart and together again
            return asked
        rows |= {place: asked[row] for row, place in enumerate(missing)}
    else:
        done(len(reading.given))
    return Representations.concatenate([rows[place] for place in range(len(reading.texts))])


@contextmanager
def progress(*, total: int | None = None, show: bool) -> Iterator[Callable[[int], object]]:
    """Show a bar of texts, or none; gives the function that counts those that are done.

    A bar of tqdm's that is off still takes tqdm's lock, which a fork would copy while it is held.
    """
    if not show:
        yield lambda _texts: None
        return
    with tqdm(total=total, desc="encode", unit="text") as bar:
        yield bar.update
