"""Texts that were read, run through SPLADE in batches: a row of term weights each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers.encoder.forward import pad
from m3_retrievers.encoder.reading import Reading, run_pieces
from m3_retrievers.encoder.splade_model import SpladeModel, term_weights
from m3_retrievers.encoder.splade_source import SpladePooling
from m3_retrievers.types.representations import Representations


def encode_terms(
    model: SpladeModel,
    reading: Reading,
    done: Callable[[int], object],
    *,
    vocabulary_size: int,
    top_terms: int | None,
    budget: int,
    device: torch.device,
) -> Representations:
    """Return the sparse rows of the distinct texts of a reading, in their order.

    top_terms: how many of each row's largest weights are kept. budget: tokens of a padded
    batch. done: is told how many of the call's texts each batch finished.
    """
    if model.table is not None:
        done(len(reading.given))
        return Representations(sparse=_of_table(reading, model.table, vocabulary_size))
    pieces: list[sp.csr_array | None] = [None] * len(reading.pieces)

    def run(rows: NDArray[np.int64]) -> None:
        chosen = [reading.pieces[row] for row in rows]
        weights = term_weights(model, pad(chosen, pad_id=model.pad_id, device=device))
        found = sp.csr_array(weights.cpu().numpy())
        for at, row in enumerate(rows.tolist()):
            pieces[row] = sp.csr_array(found[[at]])

    run_pieces(reading, run, budget=budget, padded=True, done=done)
    joined = _joined(reading, [piece for piece in pieces if piece is not None], model.pooling)
    return Representations(sparse=_largest_terms(joined, top_terms))


def _of_table(reading: Reading, table: torch.Tensor, vocabulary_size: int) -> sp.csr_array:
    """Return each text's own tokens with the weights of the table, however often they occur."""
    weights = table.cpu().numpy()
    stops = {piece.text: piece.stop for piece in reading.pieces}
    ids = [
        np.unique(one.ids[: 0 if reading.unread[row] else stops[row]])
        for row, one in enumerate(reading.tokens)
    ]
    columns = np.concatenate(ids)
    indptr = np.concatenate([[0], np.cumsum([len(own) for own in ids])])
    values = weights[columns].astype(np.float32)
    found = sp.csr_array((values, columns, indptr), shape=(len(ids), vocabulary_size))
    found.eliminate_zeros()
    return found


def _joined(
    reading: Reading, pieces: Sequence[sp.csr_array], pooling: SpladePooling
) -> sp.csr_array:
    """Return a row a text: over its windows the largest weight, or the sum, as over tokens.

    A text of unknown tokens alone has no terms.
    """
    rows: list[Any] = [None] * len(reading.tokens)
    for piece, found in zip(reading.pieces, pieces, strict=True):
        before = rows[piece.text]
        if before is None:
            rows[piece.text] = found
        else:
            rows[piece.text] = before.maximum(found) if pooling == "max" else before + found
    stacked = sp.csr_array(sp.vstack(rows, format="csr"), dtype=np.float32)
    stacked.sort_indices()
    if reading.unread.any():
        stacked = sp.csr_array(sp.diags_array((~reading.unread).astype(np.float32)) @ stacked)
        stacked.eliminate_zeros()
    return stacked


def _largest_terms(rows: sp.csr_array, count: int | None) -> sp.csr_array:
    """Return each row's largest weights; of equal ones the first columns."""
    if count is None or np.diff(rows.indptr).max(initial=0) <= count:
        return rows
    keep = np.zeros(rows.nnz, bool)
    for first, last in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        order = np.argsort(-rows.data[first:last], kind="stable")[:count]
        keep[first + order] = True
    counts = np.add.reduceat(np.append(keep, False), rows.indptr[:-1]) * (np.diff(rows.indptr) > 0)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return sp.csr_array((rows.data[keep], rows.indices[keep], indptr), shape=rows.shape)
