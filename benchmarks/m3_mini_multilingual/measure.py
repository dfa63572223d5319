"""m3-mini-multilingual on test splits, beside its backbone and BM25 over the same pieces.

nDCG@10, whole texts as far as the model reads them (512 tokens), every document scored in every
mode. Of large sets, so many questions and documents are drawn, all judged ones among them::

    python benchmarks/m3_mini_multilingual/measure.py --data DATA
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "m3_mini"))

import torch
from common import RESULTS, machine, read_result, write_result
from on_device import Judged, bm25
from weights import smaller

from m3_retrievers import M3Encoder
from m3_retrievers.evaluation import (
    Collection,
    EvaluationProtocol,
    evaluate,
    read_collection,
    represent,
)

# Training took the training splits of the first eight; it left the others alone.
SETS = (
    "arcd_ar",
    "cmrc2018_zh",
    "drcd_zh_hant",
    "fairytaleqa_sections_en",
    "jaquad_ja",
    "piaf_fr",
    "tquad_tr",
    "tydiqa_id",
    "xquad/en",
    "xquad/ar",
    "xquad/zh",
    "xquad/es",
    "squad_it",
    "faquad_pt",
    "xquad_x_en",
    "xquad_mixed",
)
QUESTIONS, DOCUMENTS = 1000, 3000
MODES = ("dense", "sparse", "colbert", "dense+sparse", "all")
UNTRAINED = ("dense", "colbert")
NDCG = "nDCG@10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--result", type=Path, default=RESULTS / "m3_mini_multilingual.json")
    options = parser.parse_args()
    trained, untrained = (
        M3Encoder.from_pretrained(name, precision=options.precision, truncation="warn", keep=None)
        for name in ("m3-mini-multilingual", "m3-mini-multilingual/backbone")
    )
    result: dict[str, Any] = {"sets": {}, **read_result(options.result)}
    result |= {"machine": machine(threads=torch.get_num_threads()), "precision": options.precision}
    result["fingerprint"] = trained.fingerprint
    for name in options.sets:
        collection = drawn(read_collection(options.data / name))
        found = measured(trained, collection, MODES)
        before = measured(untrained, collection, UNTRAINED)
        found |= {f"{mode}, untrained": value for mode, value in before.items()}
        found["bm25"] = lexical(trained, collection)
        sizes = {"questions": len(collection.queries), "documents": len(collection.documents)}
        result["sets"][name] = {**found, **sizes}
        print(name, {mode: round(value, 3) for mode, value in found.items()}, flush=True)
        write_result(options.result, result)  # what is done stays, whatever comes


def drawn(collection: Collection) -> Collection:
    """Return the collection with as many questions and documents as are to be measured."""
    ids = list(collection.queries)
    random.Random(0).shuffle(ids)
    queries = {id: collection.queries[id] for id in ids[:QUESTIONS]}
    qrels = {id: collection.qrels[id] for id in queries}
    fewer = Collection(collection.name, collection.split, collection.documents, queries, qrels)
    return smaller(fewer, DOCUMENTS) if len(collection.documents) > DOCUMENTS else fewer


def measured(encoder: M3Encoder, collection: Collection, modes: Any) -> dict[str, float]:
    found = evaluate(
        encoder,
        collection,
        modes=list(modes),
        protocol=EvaluationProtocol(recall=len(collection.documents)),
        measures=[NDCG],
        representations=represent(encoder, collection),
    )
    return {mode: found.mean(mode, NDCG) for mode in modes}


def lexical(encoder: M3Encoder, collection: Collection) -> float:
    """Return what BM25 over the model's own pieces gives, whole texts."""
    texts = list(collection.queries.values()), list(collection.documents.values())
    return Judged(collection, torch.device("cpu")).ndcg(bm25(encoder, *texts))


if __name__ == "__main__":
    main()
