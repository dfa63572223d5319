"""What ColBERT vectors lose and weigh, compressed: dtypes, and token pooling by a factor.

Each collection is encoded once, ColBERT in float32, into ``--work`` (some GB, outside the
repository). Then every way to keep the vectors ranks the same candidates, those that the dense
and the sparse leg recall to depth 100, by ColBERT alone and by the hybrid score; and scores 200
documents, all ways by turns. What ``--work`` holds already is not done again::

    python benchmarks/colbert_compression.py --work FOLDER --data DATA/cranfield DATA/cacm …
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, machine, timed, write_result
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers import HybridWeights, M3Encoder, scoring
from m3_retrievers.evaluation import Collection, read_collection
from m3_retrievers.evaluation.metrics import interval, measure
from m3_retrievers.index.stores.compressed import ColbertDtype
from m3_retrievers.index.stores.dense import DenseIndex
from m3_retrievers.index.stores.inverted import InvertedIndex
from m3_retrievers.index.stores.multivector import MultiVectorIndex
from m3_retrievers.index.stores.pooling import pooled
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.representations import Representations

DEPTH = 100
MEASURE = "nDCG@10"
TIMED_DOCUMENTS, TIMED_QUERIES = 200, 5


@dataclass(frozen=True, slots=True)
class Way:
    """One way to keep token vectors."""

    dtype: ColbertDtype
    factor: int = 1

    def __str__(self) -> str:
        return self.dtype if self.factor == 1 else f"{self.dtype}, pooled by {self.factor}"


EXACT = Way("float32")
WAYS = [
    EXACT,
    Way("float16"),
    Way("int8"),
    *(Way(dtype, factor) for factor in (2, 3, 4) for dtype in ("float16", "int8")),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1_000, help="at most, a collection")
    parser.add_argument("--asked", type=int, help="of these queries, those that are measured")
    parser.add_argument("--documents", type=int, default=100_000, help="at most, a collection")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--encode-only", action="store_true")
    parser.add_argument("--measure-only", action="store_true", help="write into --work alone")
    options = parser.parse_args()
    encoder = M3Encoder.from_pretrained(
        options.model, device="cpu", document_max_length=options.max_length
    )
    found = {}
    for folder in options.data:
        kept = options.work / folder.name / "measured.json"
        if not kept.exists():
            whole = read_collection(folder, name=folder.name)
            collection = cut(whole, queries=options.queries, documents=options.documents)
            queries, documents = encoded(encoder, collection, options.work)
            if options.encode_only:
                continue
            collection, queries = first(collection, queries, options.asked)
            one = measured(
                collection, queries, documents, encoder.default_weights, rounds=options.rounds
            )
            kept.write_text(json.dumps(one))
        found[folder.name] = json.loads(kept.read_text())
    if not options.encode_only and not options.measure_only:
        result = {
            "machine": machine(threads=torch.get_num_threads()),
            "options": {k: str(v) for k, v in vars(options).items() if k not in ("data", "work")},
            "fingerprint": encoder.fingerprint,
            "collections": found,
            "table": table(found),
        }
        print(result["table"])
        write_result(RESULTS / "colbert_compression.json", result)


def cut(whole: Collection, *, queries: int, documents: int) -> Collection:
    """Return some of a collection's queries, and all that is judged for them among the documents.

    Beside these stand others by chance, up to so many in all.
    """
    rng = np.random.default_rng(0)
    asked = sorted(rng.permutation(list(whole.queries))[:queries].tolist())
    judged = dict.fromkeys(id for query in asked for id in whole.qrels[query])
    others = [id for id in rng.permutation(list(whole.documents)).tolist() if id not in judged]
    kept = {*judged, *others[: max(0, documents - len(judged))]}
    return replace(
        whole,
        documents={id: text for id, text in whole.documents.items() if id in kept},
        queries={id: whole.queries[id] for id in asked},
        qrels={id: whole.qrels[id] for id in asked},
    )


def first(
    collection: Collection, queries: Representations, count: int | None
) -> tuple[Collection, Representations]:
    """Return a collection with the first queries alone, and their representations."""
    ids = list(collection.queries)[:count]
    kept = {id: collection.queries[id] for id in ids}
    judged = {id: collection.qrels[id] for id in ids}
    return replace(collection, queries=kept, qrels=judged), queries[: len(ids)]


# Encoded once


def encoded(
    encoder: M3Encoder, collection: Collection, work: Path
) -> tuple[Representations, Representations]:
    """Return the representations of queries and documents; from the disk, if they are there."""
    folder = work / collection.name
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        texts = list(collection.documents.values())
        parts = list(encoder.iter_documents(texts, outputs=encoder.outputs))
        write(folder / "documents", Representations.concatenate(parts))
        asked = list(collection.queries.values())
        write(folder / "queries", encoder.encode_queries(asked, outputs=encoder.outputs))
        (folder / "done").touch()
    queries, documents = read(folder / "queries"), read(folder / "documents")
    if (len(queries), len(documents)) != (len(collection.queries), len(collection.documents)):
        raise SystemExit(f"{folder} holds another choice of queries and documents: delete it")
    return queries, documents


def write(path: Path, made: Representations) -> None:
    np.save(path.with_suffix(".dense.npy"), made.require("dense"))
    np.save(path.with_suffix(".colbert.npy"), made.require("colbert").vectors)
    np.save(path.with_suffix(".offsets.npy"), made.require("colbert").offsets)
    sp.save_npz(path.with_suffix(".sparse.npz"), made.require("sparse"))


def read(path: Path) -> Representations:
    vectors = np.load(path.with_suffix(".colbert.npy"))
    return Representations(
        dense=np.load(path.with_suffix(".dense.npy")),
        sparse=sp.csr_array(sp.load_npz(path.with_suffix(".sparse.npz"))),
        colbert=MultiVectors(vectors, np.load(path.with_suffix(".offsets.npy"))),
    )


# Measured


def measured(
    collection: Collection,
    queries: Representations,
    documents: Representations,
    weights: HybridWeights,
    *,
    rounds: int,
) -> dict[str, Any]:
    """Return quality, its loss against float32, bytes and times of every way to keep vectors."""
    exact = documents.require("colbert")
    indexes, pooling_s = {}, {}
    for factor in sorted({way.factor for way in WAYS}):
        pooling_s[str(factor)], vectors = timed(lambda factor=factor: pooled(exact, factor=factor))
        for way in WAYS:
            if way.factor == factor:
                indexes[way] = MultiVectorIndex(vectors, dtype=way.dtype)
    candidates = Candidates.of(queries, documents)
    values = {
        way: quality(collection, queries, candidates, index, weights)
        for way, index in indexes.items()
    }
    return {
        "queries": len(queries),
        "documents": len(documents),
        "vectors": len(exact.vectors),
        "width": exact.dimension,
        MEASURE: {str(way): _means(of) for way, of in values.items()},
        "loss": {
            str(way): {mode: loss(values[EXACT][mode], of[mode]) for mode in of}
            for way, of in values.items()
        },
        "bytes": {str(way): size(index) for way, index in indexes.items()},
        "pooling_s": pooling_s,
        "maxsim_ms": times(indexes, queries, rounds=rounds),
    }


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What the legs recall for each query: rows (r,) and dense and sparse scores (r,) of them."""

    rows: list[NDArray[np.int64]]
    scores: list[dict[str, NDArray[Any]]]

    @classmethod
    def of(cls, queries: Representations, documents: Representations) -> Candidates:
        dense = DenseIndex(documents.require("dense"))
        sparse = InvertedIndex.from_matrix(documents.require("sparse"))
        rows, scores = [], []
        for at in range(len(queries)):
            asked = queries[at]
            vector, terms = asked.require("dense")[0], asked.require("sparse")
            found = [dense.search(vector, k=DEPTH)[0], sparse.search(terms, k=DEPTH)[0]]
            rows.append(np.unique(np.concatenate(found)))
            scores.append(
                {"dense": dense.score(vector, rows[-1]), "sparse": sparse.score(terms, rows[-1])}
            )
        return cls(rows, scores)


def quality(
    collection: Collection,
    queries: Representations,
    candidates: Candidates,
    index: MultiVectorIndex,
    weights: HybridWeights,
) -> dict[str, NDArray[np.float64]]:
    """Return (q,) nDCG@10 of the candidates, ordered by ColBERT alone and by the hybrid score."""
    ids, asked = np.array(list(collection.documents), object), list(collection.queries)
    runs: dict[str, dict[str, Any]] = {"colbert": {}, "all": {}}
    for at, query in enumerate(asked):
        rows = candidates.rows[at]
        colbert = index.score(queries[at].require("colbert"), rows)
        hybrid = scoring.hybrid({**candidates.scores[at], "colbert": colbert}, weights)
        for mode, scores in (("colbert", colbert), ("all", hybrid)):
            best = np.argsort(-scores, kind="stable")[:10]
            runs[mode][query] = (ids[rows[best]].tolist(), scores[best].tolist())
    return {mode: measure(run, collection.qrels, [MEASURE])[MEASURE] for mode, run in runs.items()}


def loss(exact: NDArray[np.float64], found: NDArray[np.float64]) -> dict[str, float]:
    """Return how much less it is on average, with a 95 % interval by resampling the queries."""
    differences = exact - found
    low, high = interval(differences)
    return {"mean": float(differences.mean()), "low": low, "high": high}


def size(index: MultiVectorIndex) -> int:
    """Return the bytes of the vectors that are kept, and of where each document's begin."""
    return sum(array.nbytes for array in index.arrays(np.arange(len(index))).values())


def times(
    indexes: Mapping[Way, MultiVectorIndex], queries: Representations, *, rounds: int
) -> dict[str, list[float]]:
    """Return milliseconds of processor time for MaxSim of a query with 200 documents.

    An entry a round; on one thread, so that other work on the machine changes them little.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    count = len(next(iter(indexes.values())))
    rows = np.sort(rng.permutation(count)[:TIMED_DOCUMENTS])
    asked = [queries[at].require("colbert") for at in range(min(TIMED_QUERIES, len(queries)))]
    found: dict[str, list[float]] = {str(way): [] for way in indexes}
    for _ in range(rounds):
        for way, index in indexes.items():
            start = time.process_time()
            for one in asked:
                index.score(one, rows)
            found[str(way)].append(1_000 * (time.process_time() - start) / len(asked))
    return found


def _means(values: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    return {mode: float(of.mean()) for mode, of in values.items()}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what each way loses, on average over the collections and at most, and weighs."""
    lines = [
        "| kept as | bytes a vector of before | loss, ColBERT alone | loss, all three | largest of "
        "a set | MaxSim of 200, ms of one core |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    vectors = sum(one["vectors"] for one in found.values())
    for way in map(str, WAYS):
        of = [one["loss"][way] for one in found.values()]
        alone, three = ([one[mode]["mean"] for one in of] for mode in ("colbert", "all"))
        weight = sum(one["bytes"][way] for one in found.values()) / vectors
        taken = [float(np.median(one["maxsim_ms"][way])) for one in found.values()]
        cells = [
            way,
            f"{weight:.0f}",
            f"{np.mean(alone):+.4f}",
            f"{np.mean(three):+.4f}",
            f"{max(*alone, *three):+.4f}",
            f"{np.mean(taken):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
