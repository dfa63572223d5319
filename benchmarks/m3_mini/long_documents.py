"""Long documents: cut, read in windows, or with several CLS tokens, each mode and BM25.

``cut`` leaves out what is over the limit (512 tokens for m3-mini); ``windows`` reads all of it, one
limit at a time (dense: the mean of the windows; sparse: the largest weight of a term; ColBERT: all
vectors); ``MCLS`` puts a CLS before every 256 tokens, for models that pool the CLS, which m3-mini
does not. BM25 reads everything::

    python benchmarks/m3_mini/long_documents.py --data DATA/fairytaleqa_long_en DATA/qmsum_long_en
"""

from __future__ import annotations

import argparse
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
import torch
from common import RESULTS, machine, timed, write_result
from quality import short, table

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.source import locate
from m3_retrievers.evaluation import Collection, evaluate, read_collection, represent

SETTINGS: dict[str, dict[str, Any]] = {
    "cut": {"truncation": "warn"},
    "MCLS": {"truncation": "warn", "mcls_every": 256},
    "windows": {"truncation": "windows"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--queries", type=int, default=400, help="drawn at random, seed 0")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "machine": machine(threads=torch.get_num_threads()),
        "queries": options.queries,
        "settings": {},
    }
    pooling = locate(options.model).pooling
    for name, how in SETTINGS.items():
        if name == "MCLS" and pooling != "cls":
            continue
        encoder = M3Encoder.from_pretrained(
            options.model,
            device="cpu",
            precision=options.precision,
            document_max_length=512,
            **how,
            keep=None,
        )
        found, seconds = {}, {}
        for folder in options.data:
            collection = fewer(read_collection(folder), options.queries)
            seconds[folder.name], vectors = timed(partial(represent, encoder, collection))
            found[folder.name] = evaluate(encoder, collection, representations=vectors)
            del vectors
        result["settings"][name] = {
            "table": table(found),
            "encode_s": seconds,
            "collections": {key: short(one) for key, one in found.items()},
        }
        print(f"{name}\n{table(found)}", flush=True)
        write_result(RESULTS / "m3_mini_long_documents.json", result)


def fewer(collection: Collection, count: int) -> Collection:
    """Return the collection with some of its queries."""
    ids = list(collection.queries)
    kept = set(random.Random(0).sample(ids, min(count, len(ids))))
    return Collection(
        collection.name,
        collection.split,
        collection.documents,
        {id: text for id, text in collection.queries.items() if id in kept},
        {id: grades for id, grades in collection.qrels.items() if id in kept},
    )


if __name__ == "__main__":
    main()
