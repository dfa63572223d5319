"""Which hybrid weights m3-mini carries: the best of a grid, on validation queries alone.

The folders are those that training_sets.py cut from the training splits. Every mode scores
every document of up to ``--documents`` (all judged ones, the rest drawn at random)::

    python benchmarks/m3_mini/weights.py --model OUT --data TRAIN/valid/*
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from common import RESULTS, write_result

from m3_retrievers import M3Encoder
from m3_retrievers.evaluation import Collection, read_collection, represent
from m3_retrievers.evaluation.tuning import GRID, grid_means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--documents", type=int, default=2000)
    options = parser.parse_args()
    encoder = M3Encoder.from_pretrained(
        options.model, device="cpu", precision=options.precision, document_max_length=256
    )
    found = {}
    for folder in options.data:
        collection = smaller(read_collection(folder), options.documents)
        found[folder.name] = grid_means(
            encoder,
            collection,
            GRID,
            metric="nDCG@10",
            representations=represent(encoder, collection),
        )
        print(folder.name, f"{found[folder.name].max():.4f}", flush=True)
    means = np.mean(list(found.values()), axis=0)
    rows = [
        {
            "weights": [weights.dense, weights.sparse, weights.colbert],
            "mean": round(float(means[at]), 4),
            **{name: round(float(values[at]), 4) for name, values in found.items()},
        }
        for at, weights in enumerate(GRID)
    ]
    rows.sort(key=lambda row: -row["mean"])
    for row in rows[:12]:
        print(row)
    write_result(
        RESULTS / "m3_mini_weights.json", {"fingerprint": encoder.fingerprint, "rows": rows}
    )


def smaller(collection: Collection, size: int) -> Collection:
    """Return the collection with its judged documents and others drawn at random."""
    judged = {id for one in collection.qrels.values() for id in one}
    others = [id for id in collection.documents if id not in judged]
    random.Random(0).shuffle(others)
    kept = judged.union(others[: max(0, size - len(judged))])
    documents = {id: text for id, text in collection.documents.items() if id in kept}
    return Collection(
        collection.name, collection.split, documents, collection.queries, collection.qrels
    )


if __name__ == "__main__":
    main()
