"""The recipe in minutes, on data every machine has: fine-tune m3-mini on Python's docstrings.

A docstring's first sentence asks, the rest of it answers. One docstring in six is kept for
testing. Negatives are mined by m3-mini's own hybrid score, then it is trained for a few steps
with self-distillation, and both models are measured on the docstrings kept aside::

    python benchmarks/m3_mini/small.py --work .m3_mini/small
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from m3_retrievers import M3Encoder
from m3_retrievers.corpora.standard_library import standard_library
from m3_retrievers.evaluation import Collection, compare, evaluate
from m3_retrievers.training import (
    BatchSettings,
    Example,
    LoraSettings,
    MiningSettings,
    TrainSettings,
    mine_negatives,
    train,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--docstrings", type=int, default=1200)
    options = parser.parse_args()
    pairs = docstrings(options.docstrings)
    kept, taught = pairs[::6], [pair for at, pair in enumerate(pairs) if at % 6]
    collection = Collection(
        "docstrings",
        "kept aside",
        {id: answer for id, _, answer in pairs},
        {id: question for id, question, _ in kept},
        {id: {id: 1} for id, _, _ in kept},
    )
    before = M3Encoder.from_pretrained("m3-mini", document_max_length=128)
    mined = mine_negatives(
        [Example(question, (answer,), source="docstrings") for _, question, answer in taught],
        [],
        before,
        settings=MiningSettings(count=3, ranks=(1, 30)),
        show_progress=True,
    )
    trained = train(
        TrainSettings(
            model="m3-mini",
            out=str(options.work),
            steps=options.steps,
            learning_rate=1e-4,
            dropout=0.0,
            lora=LoraSettings(),
            batch=BatchSettings(tokens=4096, max_queries=16, passage_max_length=128),
        ),
        mined.examples,
        show_progress=True,
    )
    after = M3Encoder.from_pretrained(trained.folder, document_max_length=128)
    first, second = (evaluate(encoder, collection) for encoder in (before, after))
    print(f"before\n{first.table()}\n\nafter\n{second.table()}\n")
    for mode in first.values:
        print(mode, dataclasses.asdict(compare(first, second, mode=mode)))


def docstrings(count: int) -> list[tuple[str, str, str]]:
    """Return (id, first sentence, the rest) of docstrings long enough for both."""
    found = []
    for record in standard_library():
        _, _, text = record.text.partition(": ")
        question, _, answer = text.partition(". ")
        if 4 <= len(question.split()) <= 20 and len(answer.split()) >= 12:
            found.append((record.id, question, answer))
    step = max(1, len(found) // count)
    return found[::step][:count]


if __name__ == "__main__":
    main()
