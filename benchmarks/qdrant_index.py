"""What QdrantIndex in a folder costs: building, disk, memory, and one hybrid search.

Representations are drawn at random (encoding takes hours, and the engine does not mind): dense
rows, term weights whose frequencies fall as words' do, ColBERT vectors around some directions, so
that searches have near and far documents. Queries are noisy copies of documents. Two runs of the
same search are compared: as the package does it, and by the definition (recall, fetch, score)::

    python benchmarks/qdrant_index.py --documents 20000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, machine, timed, write_result
from scipy import sparse as sp

from m3_retrievers import QdrantIndex, QdrantStorage, Recall
from m3_retrievers.index import search as definition
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.plan import Plan
from m3_retrievers.types.representations import Representations

VOCABULARY = 30_000
BATCH = 500
FILTERS = {
    "equal, one document in ten": {"tenth": 3},
    "a range, one in ten": {"number": {"$lt": 0.1}},
    "equal and a range, one in a hundred": {"tenth": 3, "number": {"$lt": 0.1}},
}
TEXT_FILTER = {"name": {"$itext": "NAME 12"}}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(Path(folder), options)
    result["machine"] = machine(threads=1)
    write_result(options.result, result)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    index = QdrantIndex(folder, storage=QdrantStorage())
    result: dict[str, Any] = {
        "documents": options.documents,
        "tokens_a_document": options.tokens,
        "width": options.width,
    }
    adding, questions, used = 0.0, [], time.process_time()
    for first in range(0, options.documents, BATCH):
        made = represent(BATCH, rng, options)
        records = [record(number, rng) for number in range(first, first + BATCH)]
        seconds, _ = timed(lambda made=made, records=records: index.add(records, made))
        adding += seconds
        if len(questions) < options.queries + 1:
            questions += [question(made[row], rng) for row in range(0, BATCH, 50)]
        print(f"{first + BATCH} documents, {adding:.1f} s", flush=True)
    result["seconds_to_add"] = adding
    result["processor_seconds_to_make_and_add"] = time.process_time() - used
    result["bytes_before_optimizing"] = size_of(folder)
    result["hybrid_before_optimizing_ms"] = latency(index, questions[:20], Plan())
    used = time.process_time()
    result["seconds_to_optimize"], _ = timed(index.optimize)
    result["processor_seconds_to_optimize"] = time.process_time() - used
    result["bytes"] = size_of(folder)
    one = (records[:1], made[:1])
    result["upsert_one_ms"] = 1000 * min(timed(lambda: index.upsert(*one))[0] for _ in range(5))
    result["seconds_to_close"], _ = timed(index.close)
    result["seconds_to_open"], index = timed(lambda: QdrantIndex(folder))
    first, *rest = questions[: options.queries + 1]
    result["first_search_ms"] = 1000 * timed(lambda: index.search(first, Plan(), k=10))[0]
    result["hybrid_ms"] = latency(index, rest, Plan())
    result["hybrid_of_1000_a_leg_ms"] = latency(index, rest[:20], Plan(recall=Recall(1000, 1000)))
    result["definition_ms"] = latency(index, rest[:20], Plan(), by=definition.search)
    result["filtered_ms"] = {
        name: latency(index, rest[:50], Plan(), filter=filter) for name, filter in FILTERS.items()
    }
    result["filtered_here_ms"] = latency(index, rest[:5], Plan(), filter=TEXT_FILTER)
    result["memory_after_searches"] = memory()
    result["same_first_ten_as_the_definition"] = sum(
        ids(index.search(query, Plan(), k=10)) == ids(definition.search(index, query, Plan(), k=10))
        for query in rest[:50]
    )
    index.close()
    index = QdrantIndex(folder, exact=False)
    result["hybrid_by_the_graph_ms"] = latency(index, rest, Plan())
    result["dense_recall_at_100_by_the_graph"] = dense_recall(folder, index, rest[:50])
    return result


def dense_recall(folder: Path, index: QdrantIndex, questions: list[Query]) -> float:
    """Return how many of the 100 nearest documents the index's dense leg recalls, on average."""
    found = [set(index.recall(query, "dense", k=100).ids) for query in questions]
    index.close()
    exact = QdrantIndex(folder, exact=True)
    true = [set(exact.recall(query, "dense", k=100).ids) for query in questions]
    exact.close()
    return float(np.mean([len(a & b) / 100 for a, b in zip(found, true, strict=True)]))


def latency(index: Any, questions: list[Query], plan: Plan, by: Any = None, **options: Any) -> Any:
    """Return wall clock, and processor time, which other work on the machine does not change."""
    search = index.search if by is None else lambda *args, **rest: by(index, *args, **rest)
    seconds, used = [], time.process_time()
    for query in questions:
        started = time.perf_counter()
        search(query, plan, k=10, **options)
        seconds.append(time.perf_counter() - started)
    processor = 1000 * (time.process_time() - used) / len(seconds)
    p50, p99 = np.percentile(seconds, [50, 99])
    count = len(seconds)
    return {"p50": 1000 * p50, "p99": 1000 * p99, "processor": processor, "searches": count}


def memory() -> dict[str, int]:
    """Return what the process holds now: its own, and pages of files that it has mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {key: 1024 * int(found[key].split()[0]) for key in ("RssAnon", "RssFile")}


def record(number: int, rng: np.random.Generator) -> Record:
    about = {"tenth": number % 10, "number": float(rng.random()), "name": f"name {number % 1000}"}
    return Record(f"document {number}", f"text {number} " * 60, about)


def represent(count: int, rng: np.random.Generator, options: argparse.Namespace) -> Representations:
    tokens = units(rng.standard_normal((count * options.tokens, options.width)))
    ends = np.arange(count + 1, dtype=np.int64) * options.tokens
    terms = np.minimum(rng.zipf(1.3, (count, 80)), VOCABULARY - 1)
    rows = np.repeat(np.arange(count), 80)
    weights = sp.coo_array(
        (rng.uniform(0.05, 0.4, rows.size), (rows, terms.ravel())), shape=(count, VOCABULARY)
    )
    return Representations(
        dense=units(rng.standard_normal((count, options.width))),
        sparse=sp.csr_array(weights.astype(np.float32)),
        colbert=MultiVectors(tokens, ends),
    )


def question(document: Representations, rng: np.random.Generator) -> Query:
    """Return a query near a document: some of its terms and tokens, with noise."""
    noise = rng.standard_normal(document.dense.shape) * 0.7 / np.sqrt(document.dense.shape[1])
    tokens = document.colbert[0][:12]
    spread = rng.standard_normal(tokens.shape) * 0.7 / np.sqrt(tokens.shape[1])
    terms = document.sparse.copy()
    terms.data[rng.random(terms.nnz) > 0.15] = 0
    terms.eliminate_zeros()
    made = Representations(
        dense=units(document.dense + noise),
        sparse=terms,
        colbert=MultiVectors.from_rows([units(tokens + spread)]),
    )
    return Query("", made)


def units(rows: Any) -> Any:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def ids(result: Any) -> list[str]:
    return [hit.id for hit in result.hits]


def size_of(folder: Path) -> int:
    """Return what the folder takes on the disk: files with holes count what is written."""
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*") if path.is_file())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where the index is written; a temporary one")
    parser.add_argument("--result", type=Path, default=RESULTS / "qdrant_index.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
