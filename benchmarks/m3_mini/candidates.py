"""Which of the trained adapters to ship: each, their mean, and how much of it, on validation data.

::

    python benchmarks/m3_mini/candidates.py --adapters MAIN/adapter SECOND/adapter --data VALID/*
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import torch
from common import RESULTS, machine, write_result
from quality import table
from ship import write_adapter
from weights import smaller

from m3_retrievers import HybridWeights, M3Encoder
from m3_retrievers.evaluation import evaluate, read_collection

MODES = ("dense", "sparse", "colbert", "dense+sparse", "all")
WEIGHTS = HybridWeights(0.5, 0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapters", nargs="+", type=Path, required=True)
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--scales", nargs="+", type=float, default=(0.7, 1.0))
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    names = {folder: folder.resolve().parent.name for folder in options.adapters}
    chosen = {name: [folder] for folder, name in names.items()}
    chosen[" + ".join(names.values())] = options.adapters
    collections = {
        folder.name: smaller(read_collection(folder), options.documents) for folder in options.data
    }
    found = {}
    for name, adapters in chosen.items():
        for scale in options.scales:
            with tempfile.TemporaryDirectory() as folder:
                write_adapter(Path(folder), adapters, scale=scale)
                encoder = M3Encoder.from_pretrained(
                    folder, device="cpu", dtype=options.dtype, document_max_length=256
                )
                results = {
                    key: evaluate(encoder, one, modes=MODES, weights=WEIGHTS, measures=["nDCG@10"])
                    for key, one in collections.items()
                }
            found[f"{name}, {scale:g} of it"] = shown = table(results)
            print(f"{name}, {scale:g} of it\n{shown}", flush=True)
    result = {
        "machine": machine(threads=torch.get_num_threads()),
        "documents": options.documents,
        "tables": {name: text.splitlines() for name, text in found.items()},
    }
    write_result(RESULTS / "m3_mini_candidates.json", result)


if __name__ == "__main__":
    main()
