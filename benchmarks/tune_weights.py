"""Which hybrid weights suit m3-mini: a grid, judged on training splits only.

For BEIR-format folders with a split that no result is reported on. Every mode scores every
document; the weights with the best mean nDCG@10 over the collections are what
``models/m3_mini/m3_retrievers.json`` carries::

    python benchmarks/tune_weights.py --data DATA/squad_en:train DATA/cosqa:dev
"""

from __future__ import annotations

import argparse
import itertools
import random
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from common import RESULTS, write_result
from ir_measures import ScoredDoc, nDCG
from quality import read_lines, read_qrels

from m3_retrievers import BM25, HybridRetriever, LocalIndex, M3Encoder
from m3_retrievers.lexical.tokenizers import WordTokenizer

DENSE = (0.0, 0.25, 0.5, 0.75, 1.0)
LEXICAL = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
QUERIES = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", required=True, metavar="FOLDER:SPLIT")
    options = parser.parse_args()
    encoder = M3Encoder.from_pretrained("m3-mini", device="cpu")
    # ColBERT is the strongest mode, so it is the unit
    grid = [*itertools.product(DENSE, LEXICAL, (1.0,)), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
    found: dict[str, list[float]] = {}
    for given in options.data:
        folder, split = given.rsplit(":", 1)
        found[f"{Path(folder).name}:{split}"] = evaluate(encoder, Path(folder), split, grid)
        print(given, max(zip(found[f"{Path(folder).name}:{split}"], grid, strict=True)))
    means = np.mean(list(found.values()), axis=0)
    rows: list[dict[str, Any]] = [
        {"weights": weights, "mean": round(float(mean), 4)}
        | {name: round(values[at], 4) for name, values in found.items()}
        for at, (weights, mean) in enumerate(zip(grid, means, strict=True))
    ]
    rows.sort(key=lambda row: -row["mean"])
    for row in rows[:10]:
        print(row)
    write_result(RESULTS / "tune_weights.json", {"model": encoder.name, "rows": rows})


def evaluate(
    encoder: M3Encoder, folder: Path, split: str, grid: list[tuple[float, ...]]
) -> list[float]:
    """Return nDCG@10 of each setting of the grid."""
    corpus = list(read_lines(folder / "corpus.jsonl"))
    judged = list(read_qrels(folder / "qrels" / f"{split}.tsv"))
    wanted = sorted({one.query_id for one in judged})
    wanted = random.Random(0).sample(wanted, min(QUERIES, len(wanted)))
    judged = [one for one in judged if one.query_id in set(wanted)]
    texts = {one["_id"]: one["text"] for one in read_lines(folder / "queries.jsonl")}
    index = LocalIndex(
        modes=("dense", "colbert"), weighting=BM25(tokenizer=WordTokenizer(stop_words="en"))
    )
    retriever = HybridRetriever(encoder, index, legs=("dense", "bm25"))
    ids = [one["_id"] for one in corpus]
    passages = [f"{one.get('title', '')} {one['text']}".strip() for one in corpus]
    retriever.add(passages, ids=ids, show_progress=True)
    runs: list[list[ScoredDoc]] = [[] for _ in grid]
    for query_id in wanted:
        query = retriever.prepare(texts[query_id])
        modes = np.stack(
            [
                index.scale(query, m) * index.score(query, m, ids)
                for m in ("dense", "bm25", "colbert")
            ]
        )
        for run, weights in zip(runs, grid, strict=True):
            total = np.asarray(weights) @ modes
            best = np.argsort(-total, kind="stable")[:10]
            run += [ScoredDoc(query_id, ids[at], float(total[at])) for at in best]
    return [float(ir_measures.calc_aggregate([nDCG @ 10], judged, run)[nDCG @ 10]) for run in runs]


if __name__ == "__main__":
    main()
