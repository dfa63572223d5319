"""One call of the encoder: tokenize, cut into pieces, run in batches, put back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from m3_retrievers.encoder.batching import run_batches
from m3_retrievers.encoder.checkpoint import Checkpoint
from m3_retrievers.encoder.collect import Collector
from m3_retrievers.encoder.distinct import distinct_texts
from m3_retrievers.encoder.forward import forward, pad
from m3_retrievers.encoder.pieces import Piece, Tokens, cut, text_room, tokenize
from m3_retrievers.encoder.settings import Settings, choose_budget
from m3_retrievers.encoder.unknown import find_unread
from m3_retrievers.types.representations import Output, Representations


def encode(
    model: Checkpoint,
    texts: Sequence[str],
    *,
    query: bool,
    outputs: tuple[Output, ...],
    settings: Settings,
    device: torch.device,
    name: str,
    show_progress: bool = False,
) -> Representations:
    """Return representations of n texts, in their order; equal texts get equal bits.

    name: the model's, for what is said about texts it cannot read.
    """
    different, given = distinct_texts(texts)
    # no texts: the right widths without rows, from the empty text
    tokens, pieces = _read(
        model, different or [""], given, query=query, outputs=outputs, settings=settings
    )
    stops = {piece.text: piece.stop for piece in pieces}  # pieces of a text come in order
    unread = find_unread(
        model,
        [one.ids[: stops[row]] for row, one in enumerate(tokens)],
        given=given,
        instruction=settings.query_instruction if query else "",
        name=name,
    )
    collector = Collector(pieces, texts=len(tokens))
    copies = np.bincount(given, minlength=len(tokens))
    _run(
        model,
        pieces,
        collector,
        outputs=_computed(model, outputs),
        settings=settings,
        device=device,
        # a text is counted as often as it was given, when its first piece is done
        counts=np.array([copies[p.text] if p.start == 0 else 0 for p in pieces], np.int64),
        show_progress=show_progress,
    )
    found = collector.representations(
        outputs,
        tokens=tokens,
        unread=unread,
        dropped_ids=model.dropped_ids,
        vocabulary_size=model.vocabulary_size,
    )
    return found if len(given) == len(tokens) else found[given]


def _read(
    model: Checkpoint,
    texts: Sequence[str],
    given: NDArray[np.int64],
    *,
    query: bool,
    outputs: tuple[Output, ...],
    settings: Settings,
) -> tuple[list[Tokens], list[Piece]]:
    """Return the tokens of each text, and the pieces that enter the backbone."""
    limit = settings.query_max_length if query else settings.document_max_length
    max_length = min(limit, model.max_length)
    mcls_every = None if query else settings.mcls_every
    room = text_room(model.frame, max_length=max_length, mcls_every=mcls_every)
    tokens = tokenize(
        model.tokenizer,
        texts,
        instruction=settings.query_instruction if query else "",
        spans="tokens" in outputs,
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
    return tokens, pieces


def _run(
    model: Checkpoint,
    pieces: Sequence[Piece],
    collector: Collector,
    *,
    outputs: tuple[Output, ...],
    settings: Settings,
    device: torch.device,
    counts: NDArray[np.int64],
    show_progress: bool,
) -> None:
    """Run every piece and hand the results to the collector. counts: texts a piece finishes."""

    def run(rows: NDArray[np.int64]) -> None:
        batch = pad([pieces[row] for row in rows], pad_id=model.pad_id, device=device)
        collector.put(
            rows, forward(model, batch, outputs=outputs, truncate_dim=settings.truncate_dim)
        )

    lengths = np.array([len(piece.ids) for piece in pieces], np.int64)
    budget = choose_budget(settings.batch_tokens, device)
    with torch.inference_mode(), progress(total=int(counts.sum()), show=show_progress) as done:
        for rows in run_batches(lengths, run, budget=budget):
            done(int(counts[rows].sum()))


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


def _computed(model: Checkpoint, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
    """Add the term weights that the token table shows, where the model has them."""
    has_weights = model.heads.sparse_linear is not None
    shows_weights = "tokens" in outputs and "sparse" not in outputs and has_weights
    return (*outputs, "sparse") if shows_weights else outputs
