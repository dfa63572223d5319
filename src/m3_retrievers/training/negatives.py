"""Hard negatives by the hybrid score, with a margin against false negatives.

What a retriever ranks high and what answers nothing is worth learning from. Some of it does
answer, and nobody has judged it: a passage that scores nearly as high as the positive is
taken for one of these and left out (positive-aware mining, "TopK-PercPos" of NV-Retriever, arXiv
2407.15831). FlagEmbedding's ``hn_mine.py`` samples ranks of the dense score and has no margin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from tqdm.auto import tqdm

from m3_retrievers.checks import check_k, check_texts
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError, TrainingDataError
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.training.data import Example
from m3_retrievers.types.hits import Query, Ranking
from m3_retrievers.types.plan import HybridWeights, Recall
from m3_retrievers.types.representations import Output

# Queries encoded ahead of the search: 512 of 32 tokens × 1024 are 64 MiB of ColBERT vectors.
_QUERIES_AT_ONCE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningSettings:
    """How negatives are chosen.

    weights: of the hybrid score; None is the model's own. ranks: first and last rank to choose
    from, both included, from 1; the positives are not counted. count: negatives a query. margin:
    what scores above this share of the positive's score (the lowest, where there are several)
    is left out as a likely false negative; in (0, 1], None for no margin. with_scores: write
    the hybrid scores beside the passages, as an outside teacher's.
    """

    weights: HybridWeights | None = None
    ranks: tuple[int, int] = (1, 100)
    count: int = 7
    margin: float | None = 0.95
    with_scores: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_k(self.count, name="count")
        if len(self.ranks) != 2 or not 1 <= self.ranks[0] <= self.ranks[1]:
            raise InputError(
                f"ranks expects a first and a last rank, 1 ≤ first ≤ last, got {self.ranks!r}."
            )
        if self.margin is not None and not 0 < self.margin <= 1:
            raise InputError(
                f"margin expects a share above 0 and up to 1, or None for no margin, got "
                f"{self.margin!r}."
            )


@dataclass(frozen=True, slots=True)
class Mining:
    """The examples with their new negatives, and what it took to find them.

    too_close: passages of the chosen ranks that were left out for scoring too near the positive.
    topped_up: negatives drawn at random, where the ranks held too few. missing: negatives
    short of ``count`` in the end, because the passages ran out.
    """

    examples: list[Example]
    too_close: int = 0
    topped_up: int = 0
    missing: int = 0


def mine_negatives(
    examples: Sequence[Example],
    corpus: Sequence[str],
    encoder: M3Encoder,
    *,
    settings: MiningSettings | None = None,
    show_progress: bool = False,
) -> Mining:
    """Return the examples with mined negatives in place of the ones they had.

    corpus: the passages to choose from; the examples' positives are added where they are not
    among them, for one query's answer is another's negative. Texts that differ in white space
    alone count once, empty ones not at all. encoder: a model without a sparse head is helped
    out by BM25. settings: None for the defaults.

    No negative equals a positive of its query or the query itself, and none occurs twice.
    Teacher scores that the examples had go with the old negatives. Examples without enough
    neighbours get random passages, then fewer. The same seed gives the same negatives.
    Raises InputError for what is no text, TrainingDataError for an empty positive.
    """
    settings = settings or MiningSettings()
    check_texts([one.query for one in examples])
    passages = _distinct(chain(check_texts(corpus), _positives(examples)))
    deepest = settings.ranks[1] + max((len(one.positives) for one in examples), default=0) + 1
    miner = _Miner(
        retriever=_retriever(passages.values(), encoder, settings, deepest, show_progress),
        row_of={key: row for row, key in enumerate(passages)},
        passages=list(passages.values()),
        settings=settings,
    )
    queries = miner.queries([one.query for one in examples])
    bar = tqdm(examples, disable=not show_progress, desc="mine", unit="query")
    found = [
        miner.mine(one, query, np.random.default_rng([settings.seed, row]))
        for row, (one, query) in enumerate(zip(bar, queries, strict=True))
    ]
    return Mining(
        examples=[one.example for one in found],
        too_close=sum(one.too_close for one in found),
        topped_up=sum(one.topped_up for one in found),
        missing=sum(settings.count - len(one.example.negatives) for one in found),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    example: Example
    too_close: int
    topped_up: int


@dataclass(frozen=True, slots=True)
class _Miner:
    """Chooses the negatives of one query at a time.

    passages: the texts by row; row_of: the rows by ``_key`` of the text. The retriever's ids are
    the rows, as strings.
    """

    retriever: HybridRetriever
    row_of: Mapping[str, int]
    passages: Sequence[str]
    settings: MiningSettings

    def queries(self, texts: Sequence[str]) -> Iterator[Query]:
        """Yield the queries with their representations, encoded in batches."""
        encoder = self.retriever.encoder
        outputs: tuple[Output, ...] = tuple(m for m in self.retriever.index.modes if m != "bm25")
        for first in range(0, len(texts), _QUERIES_AT_ONCE):
            batch = texts[first : first + _QUERIES_AT_ONCE]
            encoded = encoder.encode_queries(batch, outputs=outputs)
            for row, text in enumerate(batch):
                yield Query(text, encoded[row])

    def mine(self, example: Example, query: Query, rng: np.random.Generator) -> _Found:
        positives = [self.row_of[_key(text)] for text in example.positives]
        rankings = {"positives": _ranking(positives)}
        rankings |= {leg: self.retriever.recall_leg(query, leg) for leg in self.retriever.legs}
        scores = self._scores(query, rankings)
        ceiling = _ceiling(min(scores[row] for row in positives), self.settings.margin)
        known = {*positives, self.row_of.get(_key(example.query), -1)}
        others = [row for row in scores if row not in known]
        first, last = self.settings.ranks
        window = others[first - 1 : last]
        fit = [row for row in window if scores[row] <= ceiling]
        hard = _sample(fit, self.settings.count, rng)
        # what stands too high to be chosen is no random passage either
        high = [row for row in others if scores[row] > ceiling]
        taken = known.union(hard, high, others[: first - 1])
        random = self._random(taken, self.settings.count - len(hard), rng)
        chosen = [*hard, *random]
        if scored := self.settings.with_scores:
            scores |= self._scores(query, {"random": _ranking(random)})
        mined = replace(
            example,
            negatives=tuple(self.passages[row] for row in chosen),
            positive_scores=tuple(scores[row] for row in positives) if scored else None,
            negative_scores=tuple(scores[row] for row in chosen) if scored else None,
        )
        return _Found(mined, too_close=len(window) - len(fit), topped_up=len(random))

    def _scores(self, query: Query, rankings: Mapping[str, Ranking]) -> dict[int, float]:
        """Return the hybrid score of every row that is ranked anywhere, best first."""
        ids = [id for ranking in rankings.values() for id in ranking.ids]
        return {int(hit.id): hit.score for hit in self.retriever.score(query, ids)}

    def _random(self, taken: Iterable[int], count: int, rng: np.random.Generator) -> list[int]:
        if not count:
            return []
        free = np.ones(len(self.passages), bool)
        free[[row for row in taken if row >= 0]] = False
        return _sample(np.flatnonzero(free).tolist(), count, rng)


def _retriever(
    passages: Iterable[str],
    encoder: M3Encoder,
    settings: MiningSettings,
    depth: int,
    show_progress: bool,
) -> HybridRetriever:
    """Return a retriever of the passages, each leg deep enough to fill the ranks."""
    retriever = HybridRetriever(
        encoder,
        legs=("dense", "sparse" if "sparse" in encoder.outputs else "bm25"),
        recall=Recall(dense=depth, lexical=depth),
        weights=settings.weights,
    )
    texts = list(passages)
    ids = [str(row) for row in range(len(texts))]
    retriever.add(texts, ids=ids, show_progress=show_progress)
    return retriever


def _positives(examples: Iterable[Example]) -> Iterator[str]:
    for one in examples:
        for text in check_texts(one.positives):
            if not text.strip():
                raise TrainingDataError(
                    f"Mining expects positives with text, got {text!r} for the query "
                    f"{one.query[:60]!r}. Drop this passage or the example."
                )
            yield text


def _distinct(texts: Iterable[str]) -> dict[str, str]:
    """Return the texts that are not empty by their key, the first of each, in order."""
    found: dict[str, str] = {}
    for text in texts:
        if key := _key(text):
            found.setdefault(key, text)
    return found


def _key(text: str) -> str:
    """Return the text with white space evened out: texts of one key count as equal."""
    return " ".join(text.split())


def _ceiling(positive: float, margin: float | None) -> float:
    """Return the score above which a passage is taken for an answer nobody has judged.

    >>> _ceiling(0.5, 0.9), _ceiling(-0.5, 0.9), _ceiling(0.5, None)
    (0.45, -0.55, inf)
    """
    # a share of a score below 0 would lie above it
    return np.inf if margin is None else positive - (1 - margin) * abs(positive)


def _ranking(rows: Sequence[int]) -> Ranking:
    return Ranking(tuple(map(str, rows)), np.zeros(len(rows)))


def _sample(rows: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """Return up to ``count`` of the rows, each once, in the order they have."""
    chosen = rng.choice(len(rows), size=min(count, len(rows)), replace=False)
    return [rows[at] for at in sorted(chosen.tolist())]
