"""``m3-retrievers mine``: hard negatives for training lines, by the hybrid score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from m3_retrievers.cli.console import grid, results
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.encoder.precision import Precision
from m3_retrievers.errors import TrainingDataError
from m3_retrievers.training.data import read_examples, write_examples
from m3_retrievers.training.negatives import MiningSettings, mine_negatives


def run(
    lines: Sequence[Path],
    *,
    out: Path,
    model: str,
    settings: MiningSettings,
    max_length: int,
    precision: Precision,
) -> None:
    """Mine each file among its own passages, and write it under its name into ``out``."""
    files = [
        file
        for path in lines
        for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])
    ]
    if not files:
        raise TrainingDataError(
            f"{[str(p) for p in lines]} hold no .jsonl file. Give one that does."
        )
    encoder = M3Encoder.from_pretrained(model, precision=precision, document_max_length=max_length)
    numbers = ["queries", "passages", "too close", "topped up", "missing"]
    table = grid("file", *numbers, title="Hard negatives", numbers=numbers)
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        examples = read_examples(file)
        corpus = list(dict.fromkeys(text for one in examples for text in one.negatives))
        mined = mine_negatives(examples, corpus, encoder, settings=settings, show_progress=True)
        write_examples(out / file.name, mined.examples)
        row = (len(examples), len(corpus), mined.too_close, mined.topped_up, mined.missing)
        table.add_row(file.name, *map(str, row))
    results().print(table)
