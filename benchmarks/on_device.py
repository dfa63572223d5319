"""All texts against all, on an accelerator: what mining and choosing among models need.

The trainer's own module encodes, its similarities score; nothing leaves the device but figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from scipy import sparse as sp
from torch import Tensor

from m3_retrievers.encoder.checkpoint import Checkpoint, load
from m3_retrievers.encoder.pieces import Tokens, cut, tokenize
from m3_retrievers.encoder.settings import choose_device
from m3_retrievers.encoder.source import locate
from m3_retrievers.evaluation import Collection
from m3_retrievers.training.model import M3Module
from m3_retrievers.training.settings import LossSettings, Mode
from m3_retrievers.training.similarity import Encoded, mode_scores

_CHUNK = 512
# Query tokens scored at once: times the tokens of a chunk of documents, a billion similarities.
_QUERY_CHUNK = 256


class Model:
    """A model on the fastest device there is; texts become what the trainer compares."""

    def __init__(self, name: str | Path, *, precision: torch.dtype = torch.float32) -> None:
        source = locate(name)
        device = choose_device(None)
        self.checkpoint: Checkpoint = load(source, device=device, dtype=torch.float32)
        has = {"sparse": source.heads.sparse, "colbert": source.heads.colbert}
        self.modes: tuple[Mode, ...] = ("dense", *(mode for mode in has if has[mode]))  # type: ignore[arg-type]
        self.module = M3Module(
            self.checkpoint,
            modes=self.modes,
            loss=LossSettings(),
            sub_batch_tokens=65_536 if device.type == "cuda" else 2_000,
            precision=precision,
        ).to(device)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], *, max_length: int, chunk: int) -> list[Encoded]:
        """Return the texts in chunks; longer ones are cut."""
        model = self.checkpoint
        room = max_length - model.frame.size
        tokens = [Tokens(one.ids[:room]) for one in tokenize(model.tokenizer, texts, enough=room)]
        pieces = cut(tokens, model.frame, max_length=max_length, truncation="error")
        firsts = range(0, len(pieces), chunk)
        return [self.module.encode(pieces[first : first + chunk]) for first in firsts]

    @torch.no_grad()
    def scores(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        *,
        query_length: int = 512,
        document_length: int = 256,
    ) -> Iterator[dict[str, Tensor]]:
        """Yield (b, d) similarities by mode, for consecutive blocks of queries."""
        encoded = self.encode(documents, max_length=document_length, chunk=_CHUNK)
        for block in self.encode(queries, max_length=query_length, chunk=_QUERY_CHUNK):
            parts = [mode_scores(block, chunk).present() for chunk in encoded]
            yield {mode: torch.cat([part[mode] for part in parts], 1) for mode in self.modes}


class Loaded(Protocol):
    """A model whose tokenizer can be had: ``Model`` or an M3Encoder."""

    @property
    def checkpoint(self) -> Checkpoint: ...


def bm25(
    model: Loaded,
    queries: Sequence[str],
    documents: Sequence[str],
    *,
    k1: float = 1.5,
    b: float = 0.75,
) -> Tensor:
    """Return (q, d) BM25 over the model's own pieces, which costs no forward pass."""
    backend = model.checkpoint.tokenizer.backend_tokenizer
    width = model.checkpoint.vocabulary_size
    asked, held = (_counts(backend, texts, width) for texts in (queries, documents))
    frequency = np.bincount(held.indices, minlength=width)
    idf = np.log1p((held.shape[0] - frequency + 0.5) / (frequency + 0.5))
    lengths = np.asarray(held.sum(1)).ravel()
    norm = np.repeat(k1 * (1 - b + b * lengths / lengths.mean()), np.diff(held.indptr))
    held.data = held.data / (held.data + norm) * idf[held.indices]
    return torch.from_numpy((asked @ held.T).toarray().astype(np.float32))


def _counts(backend: Any, texts: Sequence[str], width: int) -> sp.csr_array:
    encoded = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    ids = [np.unique(one.ids, return_counts=True) for one in encoded]
    indptr = np.concatenate([[0], np.cumsum([len(one) for one, _ in ids])])
    columns = np.concatenate([one for one, _ in ids])
    counts = np.concatenate([count for _, count in ids]).astype(np.float64)
    return sp.csr_array((counts, columns, indptr), shape=(len(texts), width))


class Judged:
    """A collection's judgements as a matrix, to measure rankings of score matrices with."""

    def __init__(self, collection: Collection, device: torch.device) -> None:
        place = {id: at for at, id in enumerate(collection.documents)}
        gains = np.zeros((len(collection.queries), len(place)), np.float32)
        for row, id in enumerate(collection.queries):
            for document, grade in collection.qrels.get(id, {}).items():
                if document in place:
                    gains[row, place[document]] = max(0, grade)
        self.gains = torch.from_numpy(gains).to(device)
        self._discount = torch.tensor([1 / math.log2(at + 2) for at in range(10)], device=device)
        self._ideal = self._sum(self.gains.topk(10, dim=1).values)

    def _sum(self, gains: Tensor) -> Tensor:
        return gains @ self._discount[: gains.shape[1]]

    def ndcg(self, scores: Tensor) -> float:
        """Return the mean nDCG@10 of scores (q, d)."""
        best = scores.topk(10, dim=1).indices
        found = self._sum(self.gains.gather(1, best))
        return float((found / self._ideal.clamp(min=1e-9))[self._ideal > 0].mean())


def joined(blocks: Iterator[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return blocks of queries as one matrix a mode."""
    found = list(blocks)
    return {mode: torch.cat([one[mode] for one in found]) for mode in found[0]}
