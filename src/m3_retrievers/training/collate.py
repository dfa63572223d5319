"""From the draws of a step to what the model takes: pieces, targets, and who excludes whom."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from m3_retrievers.encoder.pieces import Frame, Piece, Tokens, cut, tokenize
from m3_retrievers.errors import TrainingDataError
from m3_retrievers.training.batches import Draw


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step: q queries, and the g passages of each in turn, d = q·g in all.

    teacher: (q, g) an outside teacher's scores, or None. keys: (d,) a number a passage, the
    same for the same text. known: (q, p) the keys of all positives of a query, −1 where it has
    fewer. cut: how many texts were over the length limit.
    """

    queries: Sequence[Piece]
    passages: Sequence[Piece]
    group_size: int
    teacher: Tensor | None
    keys: Tensor
    known: Tensor
    cut: int


@dataclass(frozen=True, slots=True)
class Collator:
    """Turns the draws of a step into a Step; a text over its limit is cut and counted."""

    tokenizer: Any
    frame: Frame
    query_max_length: int
    passage_max_length: int

    def __call__(self, draws: Sequence[Draw]) -> Step:
        passages = [passage for draw in draws for passage in draw.passages]
        queries, long_queries = self._pieces([d.query for d in draws], self.query_max_length)
        pieces, long_passages = self._pieces(passages, self.passage_max_length)
        most = max(len(draw.positives) for draw in draws)
        known = torch.full((len(draws), most), -1, dtype=torch.long)
        for row, draw in enumerate(draws):
            known[row, : len(draw.positives)] = torch.tensor([_key(p) for p in draw.positives])
        return Step(
            queries=queries,
            passages=pieces,
            group_size=len(draws[0].passages),
            teacher=_teacher(draws),
            keys=torch.tensor([_key(passage) for passage in passages]),
            known=known,
            cut=long_queries + long_passages,
        )

    def _pieces(self, texts: Sequence[str], max_length: int) -> tuple[list[Piece], int]:
        room = max_length - self.frame.size
        tokens = tokenize(self.tokenizer, texts, enough=room)
        short = [Tokens(one.ids[:room]) for one in tokens]
        pieces = cut(short, self.frame, max_length=max_length, truncation="error")
        return pieces, sum(len(one.ids) > room for one in tokens)


def _teacher(draws: Sequence[Draw]) -> Tensor | None:
    scored = [draw.scores for draw in draws if draw.scores is not None]
    if not scored:
        return None
    if len(scored) < len(draws):
        raise TrainingDataError(
            f"A batch expects teacher scores for all of its {len(draws)} examples or for none, got "
            f"{len(scored)}. Score the whole data set, or drop its scores."
        )
    return torch.tensor(scored, dtype=torch.float32)


def _key(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # 63 bits: fits a signed integer, never −1
