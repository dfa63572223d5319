"""Which of the trained adapters to ship, how much of each, and with which hybrid weights.

nDCG@10 on whole collections: of each mode, of Dense + Sparse and of All over a grid of weights,
every document scored in every mode. Collections that training never touched show what validation
queries of the training sets cannot::

    python benchmarks/m3_mini/choose.py ADAPTER … --scales 0.5 1 --data CISI NFCORPUS VALID/*
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
import torch
from on_device import Judged, Model, bm25, joined
from ship import write_adapter
from weights import smaller

from m3_retrievers.evaluation import Collection, read_collection

DENSE = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
SPARSE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)
# Of a collection whose judged documents are fewer, so many are scored.
DOCUMENTS = 1000
WHOLE = ("cisi", "nfcorpus_stopped")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapters", nargs="*", type=Path, help="none: the backbone")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--scales", nargs="+", type=float, default=(0.5, 0.75, 1.0))
    parser.add_argument("--backbone", default="m3-mini/backbone")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--exact", action="store_true", help="all documents, in float32")
    options = parser.parse_args()
    found = {}
    for scale in options.scales:
        found[f"{scale:g}"] = measured(
            options.adapters,
            options.data,
            scale=scale,
            backbone=options.backbone,
            exact=options.exact,
        )
        print(scale, json.dumps({k: v["modes"] for k, v in found[f"{scale:g}"].items()}))
        if options.out:
            options.out.write_text(json.dumps(found))


def measured(
    adapters: Sequence[Path],
    data: Sequence[Path],
    *,
    scale: float,
    backbone: str,
    exact: bool = False,
    whole: bool = False,
) -> dict[str, Any]:
    """Return what the mean of adapters, at a scale, gives on each collection.

    Without adapters it is the backbone's, its token states as ColBERT vectors.
    """
    precision = torch.float32 if exact else torch.bfloat16
    if not adapters:
        model = Model(backbone, precision=precision)
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_adapter(Path(folder), adapters, scale=scale, backbone=backbone)
            model = Model(folder, precision=precision)
    return {path.name: ranked(model, collection_of(path, whole=exact or whole)) for path in data}


def collection_of(path: Path, *, whole: bool) -> Collection:
    collection = read_collection(path)
    whole = whole or path.name in WHOLE
    return collection if whole else smaller(collection, DOCUMENTS)


def ranked(model: Model, collection: Collection) -> dict[str, Any]:
    """Return nDCG@10 by mode, and of the sums by their weights."""
    texts = list(collection.queries.values()), list(collection.documents.values())
    scores = joined(model.scores(*texts))
    judged = Judged(collection, scores["dense"].device)
    result: dict[str, Any] = {"modes": {mode: judged.ndcg(one) for mode, one in scores.items()}}
    result["modes"]["bm25"] = judged.ndcg(bm25(model, *texts).to(judged.gains.device))
    if set(scores) == {"dense", "sparse", "colbert"}:
        result["dense+sparse"] = {
            f"{weight:g}": judged.ndcg(scores["dense"] + weight * scores["sparse"])
            for weight in SPARSE
        }
        result["all"] = {
            f"{dense:g}/{sparse:g}": judged.ndcg(
                dense * scores["dense"] + sparse * scores["sparse"] + scores["colbert"]
            )
            for dense, sparse in itertools.product(DENSE, SPARSE)
        }
    return result


if __name__ == "__main__":
    main()
