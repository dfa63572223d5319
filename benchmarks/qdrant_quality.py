"""What Qdrant's precisions, quantised copies and BM25 change in a ranking.

A collection is encoded once, and searched through LocalIndex in float32, which is exact, and
through QdrantIndex in a folder with each storage. The engine's threshold is lowered, so that so
small a collection is quantised and gets a graph as a large one would. BM25 is LocalIndex's with
Lucene's idf and with rank_bm25's, and Qdrant's own::

    python benchmarks/qdrant_quality.py --data DATA/cranfield
    python benchmarks/qdrant_quality.py --random 20000
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge
from common import RESULTS, machine, write_result
from qdrant_index import question, record
from qdrant_index import represent as random_representations

from m3_retrievers import BM25, HybridWeights, LocalIndex, M3Encoder, QdrantIndex, QdrantStorage
from m3_retrievers.evaluation import read_collection, represent
from m3_retrievers.evaluation.metrics import measure
from m3_retrievers.index.qdrant.edge_shapes import config
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.plan import Plan

STORAGES = {
    "float32": QdrantStorage(colbert="float32"),
    "default: ColBERT in float16": QdrantStorage(),
    "all in float16": QdrantStorage(dense="float16"),
    "scalar": QdrantStorage(quantization="scalar"),
    "binary": QdrantStorage(quantization="binary"),
}
BATCH = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    parser.add_argument("--random", type=int, metavar="DOCUMENTS")
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--max-length", type=int, default=256)
    options = parser.parse_args()
    given = random_set(options.random) if options.random else collection(options)
    name, records, made, queries, qrels, weights = given
    plan = Plan(weights=weights)
    exact = LocalIndex(colbert_dtype="float32")
    exact.add(records, made)
    expected = {id: exact.search(query, plan, k=10).hits for id, query in queries.items()}
    dense = {id: exact.recall(query, "dense", k=100).ids for id, query in queries.items()}
    result: dict[str, Any] = {
        "machine": machine(threads=1),
        "documents": len(records),
        "queries": len(queries),
        "exact": scored(expected, qrels),
        "storages": {},
    }
    for label, storage in STORAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            index = stored(Path(folder), storage, records, made)
            found = {id: index.search(query, plan, k=10).hits for id, query in queries.items()}
            recalled = {id: index.recall(q, "dense", k=100).ids for id, q in queries.items()}
            index.close()
        shares = [len({*recalled[id]} & {*dense[id]}) / len(dense[id]) for id in queries]
        result["storages"][label] = {
            **scored(found, qrels),
            **compared(found, expected),
            "dense_recall_of_exact_100": float(np.mean(shares)),
        }
        print(label, result["storages"][label], flush=True)
    if qrels:
        result["bm25"] = lexical(records, made, queries, qrels)
    write_result(RESULTS / f"qdrant_quality_{name}.json", result)


def collection(options: argparse.Namespace) -> Any:
    encoder = M3Encoder.from_pretrained(
        options.model, device="cpu", precision="fp32", document_max_length=options.max_length
    )
    read = read_collection(options.data)
    asked, documents = represent(encoder, read)
    records = [Record(id, text) for id, text in read.documents.items()]
    queries = {id: Query(read.queries[id], asked[at]) for at, id in enumerate(read.queries)}
    return options.data.name, records, documents, queries, read.qrels, encoder.default_weights


def random_set(count: int) -> Any:
    rng = np.random.default_rng(0)
    shape = argparse.Namespace(tokens=16, width=128)
    made = random_representations(count, rng, shape)
    records = [record(at, rng) for at in range(count)]
    queries = {str(at): question(made[at], rng) for at in range(0, count, count // 200)}
    return f"random_{count}", records, made, queries, None, HybridWeights()


def stored(folder: Path, storage: QdrantStorage, records: Any, made: Any) -> QdrantIndex:
    index = QdrantIndex(folder, storage=storage)
    for first in range(0, len(records), BATCH):
        index.add(records[first : first + BATCH], made[first : first + BATCH])
    made_as = config(index._collection.agreement().layout)
    index.close()
    low = qdrant_edge.EdgeConfig(
        vectors=made_as.vectors,
        sparse_vectors=made_as.sparse_vectors,
        optimizers=qdrant_edge.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1),
    )
    shard = qdrant_edge.EdgeShard.load(str(folder / "m3_retrievers"), low)
    shard.optimize()
    shard.flush()
    print("indexed vectors:", shard.info().indexed_vectors_count, flush=True)
    shard.close()
    return QdrantIndex(folder, exact=False)


def compared(found: Any, expected: Any) -> dict[str, float]:
    """Return how often and how far the first ten are those of the exact search."""
    pairs = [([h.id for h in found[id]], [h.id for h in expected[id]]) for id in expected]
    scores = [
        abs(mine.score - other.score)
        for id in expected
        for mine, other in zip(found[id], expected[id], strict=True)
    ]
    return {
        "same_first_ten_in_order": float(np.mean([mine == other for mine, other in pairs])),
        "overlap_of_the_first_ten": float(
            np.mean([len({*mine} & {*other}) / len(other) for mine, other in pairs])
        ),
        "largest_difference_of_a_score": float(max(scores)),
    }


def scored(found: Any, qrels: Any) -> dict[str, float]:
    if not qrels:
        return {}
    run = {
        id: ([hit.id for hit in hits], [hit.score for hit in hits]) for id, hits in found.items()
    }
    values = measure(run, qrels, measures=["nDCG@10"])["nDCG@10"]
    return {"ndcg_at_10": float(np.mean(values))}


def lexical(records: Any, made: Any, queries: Any, qrels: Any) -> dict[str, Any]:
    """Return BM25's figures: LocalIndex's two kinds of idf, and the engine's."""
    found = {}
    for label, bm25 in (("lucene", BM25()), ("rank_bm25", BM25(idf="rank_bm25"))):
        index = LocalIndex(modes=("dense",), weighting=bm25)
        index.add(records, made)
        found[f"LocalIndex, idf {label}"] = recalled(index, queries)
    for label, average in (("of the first 200", None), ("200 terms", 200)):
        with tempfile.TemporaryDirectory() as folder:
            index = QdrantIndex(folder, modes=("dense",), weighting=BM25(), average_length=average)
            for first in range(0, len(records), BATCH):
                index.add(records[first : first + BATCH], made[first : first + BATCH])
            found[f"Qdrant, average length {label}"] = recalled(index, queries)
            index.close()
    exact = found["LocalIndex, idf lucene"]
    result = {}
    for label, rankings in found.items():
        run = {id: (r.ids, r.scores) for id, r in rankings.items()}
        values = measure(run, qrels, measures=["nDCG@10"])["nDCG@10"]
        shares = [
            len({*rankings[id].ids[:10]} & {*exact[id].ids[:10]}) / len(exact[id].ids[:10])
            for id in queries
            if len(exact[id])
        ]
        result[label] = {
            "ndcg_at_10": float(np.mean(values)),
            "overlap_of_the_first_ten": float(np.mean(shares)),
        }
        print(label, result[label], flush=True)
    return result


def recalled(index: Any, queries: Any) -> Any:
    return {id: index.recall(query, "bm25", k=100) for id, query in queries.items()}


if __name__ == "__main__":
    main()
