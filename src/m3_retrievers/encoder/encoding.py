"""Texts that were read, run through M3 in batches and put back in order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from m3_retrievers.encoder.checkpoint import Checkpoint
from m3_retrievers.encoder.collect import Arrivals, Collector
from m3_retrievers.encoder.forward import forward, pack
from m3_retrievers.encoder.reading import Reading, run_pieces
from m3_retrievers.encoder.settings import Settings, choose_budget
from m3_retrievers.types.representations import Output, Representations


def encode(
    model: Checkpoint,
    reading: Reading,
    outputs: tuple[Output, ...],
    done: Callable[[int], object],
    *,
    settings: Settings,
    device: torch.device,
) -> Representations:
    """Return representations of the distinct texts of a reading, in their order.

    done: is told how many of the call's texts each batch finished.
    """
    collector = Collector(reading.pieces, texts=len(reading.tokens))
    arrivals = Arrivals(collector)
    computed = _computed(model, outputs)

    def run(rows: NDArray[np.int64]) -> None:
        batch = pack([reading.pieces[row] for row in rows], device=device)
        result = forward(model, batch, outputs=computed, truncate_dim=settings.truncate_dim)
        arrivals.put(rows, result)

    run_pieces(
        reading,
        run,
        budget=choose_budget(settings.batch_tokens, device),
        padded=not model.is_packed,
        done=done,
    )
    arrivals.finish()
    return collector.representations(
        outputs,
        tokens=reading.tokens,
        unread=reading.unread,
        dropped_ids=model.dropped_ids,
        vocabulary_size=model.vocabulary_size,
    )


def _computed(model: Checkpoint, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
    """Add the term weights that the token table shows, where the model has them."""
    has_weights = model.heads.sparse_linear is not None
    shows_weights = "tokens" in outputs and "sparse" not in outputs and has_weights
    return (*outputs, "sparse") if shows_weights else outputs
