"""Hard negatives for all training lines at once, by every query's score with every passage.

The rules of ``m3-retrievers mine`` (``training.negatives``): the hybrid score, a window of ranks,
and nothing that scores above a share of the positive's. That command asks an index query by
query; on an accelerator all pairs of a data set take seconds::

    python benchmarks/m3_mini/mine.py --train FOLDER/train --out FOLDER/mined
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import numpy as np
import torch
from on_device import Model
from torch import Tensor

from m3_retrievers.training import Example, MiningSettings, read_examples, write_examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--count", type=int, default=7)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--max-length", type=int, default=192)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = Model(options.model, precision=torch.bfloat16)
    settings = MiningSettings(count=options.count, ranks=(1, options.depth))
    for path in sorted(options.train.glob("*.jsonl")):
        examples = list(mined(model, read_examples(path), settings, length=options.max_length))
        write_examples(options.out / path.name, examples)
        mean = np.mean([len(one.negatives) for one in examples])
        print(f"{path.stem}: {len(examples)} lines, {mean:.2f} negatives", flush=True)


def mined(
    model: Model, examples: Sequence[Example], settings: MiningSettings, *, length: int
) -> Iterator[Example]:
    """Yield the examples with negatives of the same data set; fewer where the ranks hold fewer."""
    texts = chain.from_iterable((*one.positives, *one.negatives) for one in examples)
    row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    passages = list(row_of)
    blocks = model.scores(
        [one.query for one in examples], passages, query_length=128, document_length=length
    )
    weights = locate_weights(model)
    first = 0
    for block in blocks:
        total = sum(weights[mode] * scores for mode, scores in block.items())
        assert isinstance(total, Tensor)
        for row in range(len(total)):
            one = examples[first + row]
            positives = [row_of[text] for text in one.positives]
            known = {*positives, row_of.get(one.query, -1)}
            rng = np.random.default_rng([settings.seed, first + row])
            yield replace(
                one,
                negatives=tuple(
                    passages[at] for at in chosen(total[row], positives, known, settings, rng)
                ),
                positive_scores=None,
                negative_scores=None,
            )
        first += len(total)


def chosen(
    scores: Tensor,
    positives: Sequence[int],
    known: set[int],
    settings: MiningSettings,
    rng: np.random.Generator,
) -> list[int]:
    """Return rows of hard negatives of one query, whose scores (d,) are given."""
    lowest = float(scores[positives].min())
    margin = settings.margin or 1.0
    ceiling = lowest - (1 - margin) * abs(lowest)
    depth = min(len(scores), settings.ranks[1] + len(known))
    best = scores.topk(depth)
    ranked = [
        (at, value)
        for at, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        if at not in known
    ]
    window = ranked[settings.ranks[0] - 1 : settings.ranks[1]]
    fit = [at for at, value in window if value <= ceiling]
    picked = rng.choice(len(fit), size=min(settings.count, len(fit)), replace=False)
    return [fit[at] for at in sorted(picked.tolist())]


def locate_weights(model: Model) -> dict[str, float]:
    """Return the hybrid weights m3-mini was published with first, which mined all lines."""
    weights = {"dense": 0.5, "sparse": 0.5, "colbert": 1.0}
    return {mode: weights[mode] for mode in model.modes}


if __name__ == "__main__":
    main()
