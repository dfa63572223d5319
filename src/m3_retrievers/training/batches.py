"""Every batch of a run, decided before it begins.

The seed alone decides which examples meet in which step and which passages stand for them,
so a run that was killed and resumed sees the very batches it would have seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import TrainingDataError
from m3_retrievers.training.data import Example
from m3_retrievers.training.settings import BatchSettings

# A long passage is cut into so many parts when its order is shuffled (FlagEmbedding's rule).
_PARTS = 3
_LONG = 100


@dataclass(frozen=True, slots=True)
class Draw:
    """What one example contributes to a step: g passages, the first of them positive.

    scores: an outside teacher's score of each, or None. positives: all that answer the query,
    so that none of them is taken for a negative when another query brings it along.
    """

    query: str
    passages: tuple[str, ...]
    scores: tuple[float, ...] | None
    positives: tuple[str, ...]


class Plan(Sequence[list[Draw]]):
    """The batches of ``steps`` steps; ``plan[n]`` is the same whenever it is asked for.

    Raises TrainingDataError where a batch could hold no negative.
    """

    def __init__(
        self, examples: Sequence[Example], *, settings: BatchSettings, steps: int, seed: int
    ) -> None:
        self._examples = examples
        self._settings = settings
        self._seed = seed
        self._groups = _groups(examples, settings)
        self._pools = _pools(examples)
        self._check()
        batches: list[NDArray[np.int64]] = []
        self.epoch_steps = 0
        while len(batches) < steps:
            batches += self._epoch(len(batches))
            self.epoch_steps = self.epoch_steps or len(batches)
        self._batches = batches[:steps]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> list[Draw]:  # type: ignore[override]
        rng = np.random.default_rng([self._seed, 1, step])
        return [self._draw(self._examples[row], rng) for row in self._batches[step]]

    def _epoch(self, start: int) -> list[NDArray[np.int64]]:
        """Return one pass over the examples, its batches in random order."""
        rng = np.random.default_rng([self._seed, 0, start])
        batches = []
        for buckets in self._groups.values():
            left = np.empty(0, np.int64)
            for bound, rows in sorted(buckets.items()):
                # what does not fill a batch goes on to the next, longer bucket
                rows = np.concatenate([left, rng.permutation(rows)])
                size = self.batch_size(bound)
                full = len(rows) // size * size
                batches += np.split(rows[:full], range(size, full, size)) if full else []
                left = rows[full:]
            if len(left) > 1 or (len(left) and self._settings.group_size > 1):
                batches.append(left)
        return [batches[at] for at in rng.permutation(len(batches))]

    def batch_size(self, bound: int) -> int:
        """Return how many queries share a step where passages have up to ``bound`` tokens."""
        settings = self._settings
        room = settings.tokens // (bound * settings.group_size)
        return min(settings.max_queries, max(room, 2 if settings.group_size == 1 else 1))

    def _draw(self, example: Example, rng: np.random.Generator) -> Draw:
        positive = int(rng.integers(len(example.positives)))
        wanted = self._settings.group_size - 1
        rows = self._negatives(example, wanted, rng)
        passages = [example.positives[positive], *(example.negatives[row] for row in rows)]
        scores = None
        if example.positive_scores is not None and example.negative_scores is not None:
            negative = (example.negative_scores[row] for row in rows)
            scores = (example.positive_scores[positive], *negative)
        passages += self._borrowed(example, 1 + wanted - len(passages), rng)
        if scores is not None and len(scores) < len(passages):
            raise TrainingDataError(
                "Teacher scores expect a negative to score, got none for the query "
                f"{example.query[:60]!r}. Mine negatives first, or leave the scores out."
            )
        shuffled = tuple(self._shuffle(passage, rng) for passage in passages)
        return Draw(example.query, shuffled, scores, example.positives)

    def _negatives(self, example: Example, wanted: int, rng: np.random.Generator) -> list[int]:
        """Return rows of negatives: each once if there are enough, in turn if there are few."""
        count = len(example.negatives)
        if not count:
            return []
        order = rng.permutation(count)
        return [int(order[at % count]) for at in range(wanted)]

    def _borrowed(self, example: Example, wanted: int, rng: np.random.Generator) -> Iterator[str]:
        """Yield other examples' positives, for one that has no negatives of its own."""
        pool = self._pools[example.source]
        while wanted > 0:
            passage = pool[int(rng.integers(len(pool)))]
            if passage not in example.positives:
                yield passage
                wanted -= 1

    def _shuffle(self, passage: str, rng: np.random.Generator) -> str:
        """Return a passage with its parts in another order, once in a while (paper, 4.1)."""
        if len(passage) <= _LONG or rng.random() >= self._settings.shuffle_share:
            return passage
        size = -(-len(passage) // _PARTS)
        parts = [passage[at : at + size] for at in range(0, len(passage), size)]
        return " ".join(parts[at] for at in rng.permutation(len(parts)))

    def _check(self) -> None:
        if not self._examples:
            raise TrainingDataError("Training expects at least one example, got none.")
        for source, pool in self._pools.items():
            lonely = [one for one in self._examples if one.source == source and not one.negatives]
            if lonely and not set(pool) - set(lonely[0].positives):
                raise TrainingDataError(
                    f"The data set {source!r} expects at least two different passages, so that "
                    "there is something to tell apart. Give its examples negatives, or add others."
                )


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has; batches are planned by it, not cut by it.

    Four UTF-8 bytes a token hold within a factor of two for English WordPiece and for
    XLM-R's pieces across scripts, and tokenising everything twice would cost minutes.
    """
    return len(text.encode("utf-8", "replace")) // 4 + 2


def _groups(
    examples: Sequence[Example], settings: BatchSettings
) -> dict[str, dict[int, NDArray[np.int64]]]:
    """Return the examples' rows by source (one for all, if sources may mix) and length bound."""
    bounds = np.asarray(settings.lengths)
    found: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, one in enumerate(examples):
        longest = max(estimated_tokens(text) for text in (*one.positives, *one.negatives))
        length = min(longest, settings.passage_max_length)
        bound = int(bounds[min(int(np.searchsorted(bounds, length)), len(bounds) - 1)])
        bound = min(bound, settings.passage_max_length)
        found[one.source if settings.same_source else ""][bound].append(row)
    return {
        source: {bound: np.asarray(rows, np.int64) for bound, rows in buckets.items()}
        for source, buckets in sorted(found.items())
    }


def _pools(examples: Sequence[Example]) -> dict[str, list[str]]:
    """Return the distinct positives of each source, in order of appearance."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for one in examples:
        found[one.source].update(dict.fromkeys(one.positives))
    return {source: list(passages) for source, passages in found.items()}
