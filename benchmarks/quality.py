"""How well each leg and the hybrid rank, on BEIR-format folders.

A folder holds corpus.jsonl, queries.jsonl and qrels/test.tsv. A document's text is its title,
a space and its text. Dense and ColBERT rank the whole corpus (ColBERT by exact MaxSim over all
documents); BM25 takes Unicode words without English stop words; hybrid is HybridRetriever as
it comes (dense and BM25 recall 100 each, the union scored with ColBERT). Measures are
ir-measures' nDCG@10 and R@100::

    python benchmarks/quality.py --data DATA/cranfield DATA/xquad/en
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ir_measures
import torch
from common import RESULTS, machine, timed, write_result
from ir_measures import Qrel, R, ScoredDoc, nDCG

from m3_retrievers import BM25, HybridRetriever, LocalIndex, M3Encoder
from m3_retrievers.lexical.tokenizers import WordTokenizer
from m3_retrievers.representations import Mode, Ranking

MEASURES = [nDCG @ 10, R @ 100]
DEPTH = 100
MODES: dict[str, Mode] = {"dense": "dense", "ColBERT": "colbert", "BM25": "bm25"}
RUNS = (*MODES, "hybrid")


def main() -> None:
    options = _options()
    encoder = M3Encoder.from_pretrained(options.model, device="cpu")
    about = machine(threads=torch.get_num_threads())
    datasets = {}
    for folder in options.data:
        name = "/".join(folder.resolve().parts[-2:]).removeprefix("data/")
        datasets[name] = evaluate(encoder, folder)
        print(f"{name}: {datasets[name]['runs']}")
    result = {"machine": about, "model": encoder.name, "datasets": datasets}
    print(table(result))
    write_result(options.result, result)
    options.result.with_suffix(".md").write_text(table(result) + "\n")


def evaluate(encoder: M3Encoder, folder: Path) -> dict[str, Any]:
    """Return sizes, seconds and each run's measures."""
    corpus = list(read_lines(folder / "corpus.jsonl"))
    judged = list(read_qrels(folder / "qrels" / "test.tsv"))
    wanted = {one.query_id for one in judged}
    queries = [one for one in read_lines(folder / "queries.jsonl") if one["_id"] in wanted]
    index = LocalIndex(
        modes=("dense", "colbert"), weighting=BM25(tokenizer=WordTokenizer(stop_words="en"))
    )
    retriever = HybridRetriever(encoder, index, legs=("dense", "bm25"))
    texts = [f"{one.get('title', '')} {one['text']}".strip() for one in corpus]
    ids = [one["_id"] for one in corpus]
    index_s, _ = timed(lambda: retriever.add(texts, ids=ids, show_progress=True))

    found: dict[str, list[ScoredDoc]] = {run: [] for run in RUNS}
    search_s = []
    for one in queries:
        query = retriever.prepare(one["text"])
        for run, mode in MODES.items():
            found[run] += _scored(one["_id"], index.recall(query, mode, k=DEPTH))
        seconds, hits = timed(lambda q=one["text"]: retriever.search(q, k=DEPTH))
        found["hybrid"] += [ScoredDoc(one["_id"], hit.id, hit.score) for hit in hits]
        search_s.append(seconds)
    return {
        "documents": len(corpus),
        "queries": len(queries),
        "index_s": index_s,
        "median_search_s": statistics.median(search_s),
        "runs": {run: _measure(judged, scored) for run, scored in found.items()},
    }


def table(result: dict[str, Any]) -> str:
    """Return a Markdown table, one line a collection and measure; the best run in bold."""
    lines = [
        "| collection | measure | " + " | ".join(RUNS) + " |",
        "| --- | --- |" + " ---: |" * len(RUNS),
    ]
    for name, one in result["datasets"].items():
        for measure in map(str, MEASURES):
            values = [one["runs"][run][measure] for run in RUNS]
            cells = [f"**{v:.3f}**" if v == max(values) else f"{v:.3f}" for v in values]
            lines.append(f"| {name} | {measure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _scored(query_id: str, ranking: Ranking) -> list[ScoredDoc]:
    pairs = zip(ranking.ids, ranking.scores.tolist(), strict=True)
    return [ScoredDoc(query_id, id, score) for id, score in pairs]


def _measure(judged: list[Qrel], scored: list[ScoredDoc]) -> dict[str, float]:
    values = ir_measures.calc_aggregate(MEASURES, judged, scored)
    return {str(measure): round(value, 4) for measure, value in values.items()}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def read_qrels(path: Path) -> Iterator[Qrel]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            yield Qrel(row["query-id"], row["corpus-id"], int(row["score"]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--result", type=Path, default=RESULTS / "quality.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
