"""Scoring and searching without a model, beside what others do the same work with.

Late interaction beside FlagEmbedding's loop, lexical search beside scipy, BM25 beside rank_bm25
and bm25s, dense search beside faiss's exact index, and what an index of 100,000 documents makes
a search wait for while others are added, and keeps in memory. Vectors are random; terms are
drawn as words are, the n-th most frequent in proportion to 1/n. Every answer is compared::

    python benchmarks/speed_scoring.py --threads 2
    python benchmarks/speed_scoring.py --only maxsim dense
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, machine, read_result, timed, write_result
from scipy import sparse as sp
from taking_turns import shown, take_turns

from m3_retrievers import LocalIndex
from m3_retrievers.index.stores.dense import DenseIndex
from m3_retrievers.index.stores.inverted import InvertedIndex
from m3_retrievers.index.stores.live import LiveRows
from m3_retrievers.index.stores.multivector import MultiVectorIndex
from m3_retrievers.index.stores.weighted import WeightedIndex
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.plan import Plan
from m3_retrievers.types.representations import Representations

VOCABULARY = 250_002
QUERY_TOKENS = 14


def units(count: int, width: int, *, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def words(shape: tuple[int, ...], *, vocabulary: int, seed: int = 0) -> np.ndarray:
    """Return numbers of words, the n-th as often as 1/n says."""
    ends = np.cumsum(1 / np.arange(1, vocabulary + 1))
    drawn = np.random.default_rng(seed).random(shape) * ends[-1]
    return np.searchsorted(ends, drawn)


def term_weights(count: int, terms: int, *, seed: int = 0) -> sp.csr_array:
    drawn = words((count, terms), vocabulary=VOCABULARY, seed=seed)
    weights = np.random.default_rng(seed + 1).random(count * terms, dtype=np.float32) + 0.01
    offsets = np.arange(0, count * terms + 1, terms)
    rows = sp.csr_array((weights, drawn.ravel(), offsets), shape=(count, VOCABULARY))
    rows.sum_duplicates()
    return rows


# Late interaction


def maxsim(candidates: int, width: int) -> dict[str, Any]:
    """Rerank candidates of 128 tokens each by a query of 14."""
    packed = units(candidates * 128, width)
    query = units(QUERY_TOKENS, width, seed=1)
    documents = packed.reshape(candidates, 128, width)
    offsets = np.arange(0, candidates * 128 + 1, 128)
    index, small = (
        MultiVectorIndex(MultiVectors(packed, offsets), dtype=dtype)
        for dtype in ("float16", "int8")
    )
    asked = MultiVectors.from_rows([query])
    rows = np.random.default_rng(2).permutation(candidates)

    def loop() -> np.ndarray:
        # FlagEmbedding's BGEM3FlagModel.colbert_score, once a pair
        return np.array([_flag_embedding(query, documents[row]) for row in rows])

    difference = float(np.abs(index.score(asked, rows) - loop()).max())
    found = take_turns(
        {
            "FlagEmbedding": loop,
            "ours, float16 store": lambda: index.score(asked, rows),
            "ours, int8 store": lambda: small.score(asked, rows),
        },
        baseline="FlagEmbedding",
        rounds=5,
    )
    off = float(np.abs(small.score(asked, rows) - loop()).max())
    return {**found, "largest_difference": difference, "largest_difference_int8": off}


def _flag_embedding(query: np.ndarray, document: np.ndarray) -> float:
    from FlagEmbedding.inference.embedder.encoder_only.m3 import M3Embedder

    return float(M3Embedder.colbert_score(None, query, document))


# Lexical


def lexical(documents: int) -> dict[str, Any]:
    """Take the best 100 of documents with 64 terms each for a query of 12."""
    matrix, asked = term_weights(documents, 64), term_weights(20, 12, seed=5)
    index = InvertedIndex.from_matrix(matrix)
    queries = [sp.csr_array(asked[[row]]) for row in range(20)]
    turn, theirs = cycle(queries), cycle(queries)

    def by_scipy() -> list[np.ndarray]:
        scores = (matrix @ next(theirs).T).toarray()[:, 0]
        best = np.argpartition(-scores, 100)[:100]
        return best[np.argsort(-scores[best], kind="stable")]

    for query in queries[:4]:
        scores = np.asarray((matrix @ query.T).toarray())[:, 0]
        np.testing.assert_allclose(
            np.sort(scores)[-100:][::-1], index.search(query, k=100)[1], 1e-5
        )
    return take_turns(
        {"scipy": by_scipy, "ours": lambda: index.search(next(turn), k=100)},
        baseline="scipy",
        rounds=40 if documents < 200_000 else 10,
    )


def bm25(documents: int) -> dict[str, Any]:
    """Fit BM25 to documents of 32 words, and ask it for the best 10."""
    import bm25s
    import rank_bm25

    vocabulary = np.array([f"word{n}" for n in range(60_000)])
    drawn = vocabulary[words((documents, 32), vocabulary=60_000)]
    texts = [" ".join(row) for row in drawn.tolist()]
    questions = [" ".join(row) for row in vocabulary[words((30, 6), vocabulary=60_000, seed=9)]]

    def ours() -> tuple[WeightedIndex, LiveRows]:
        weighting = BM25()
        index, live = WeightedIndex(weighting), LiveRows(documents)
        index.append(weighting.count(texts))
        index.fitted(live=live)
        return index, live

    def by_bm25s() -> Any:
        made = bm25s.BM25(backend="numba")
        made.index(bm25s.tokenize(texts, show_progress=False, stopwords=[]), show_progress=False)
        return made

    def by_rank_bm25() -> Any:
        return rank_bm25.BM25Okapi([text.split() for text in texts])

    build = take_turns(
        {"rank_bm25": by_rank_bm25, "bm25s": by_bm25s, "ours": ours},
        baseline="rank_bm25",
        rounds=1,
        blocks=2,
        seconds=30,
    )
    (index, live), peer = ours(), by_bm25s()
    turn, theirs = cycle(questions), cycle(questions)

    def ask_bm25s() -> Any:
        tokens = bm25s.tokenize([next(theirs)], show_progress=False, stopwords=[])
        return peer.retrieve(tokens, k=10, show_progress=False)

    query = take_turns(
        {
            "bm25s": ask_bm25s,
            "ours": lambda: index.search(next(turn), k=10, live=live, admitted=live.mask),
        },
        baseline="bm25s",
        rounds=100,
    )
    return {"build": build, "query": query}


# Dense


def dense(documents: int, width: int = 1_024) -> dict[str, Any]:
    """Take the best 10 of documents for one query, and for 64."""
    import faiss

    rows = units(documents, width)
    queries = rows[:64] + 0.7 * units(64, width, seed=3)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    index, peer = DenseIndex(rows), faiss.IndexFlatIP(width)
    peer.add(rows)
    for query, expected in zip(queries, peer.search(queries, 10)[1], strict=True):
        assert set(index.search(query, k=10)[0]) == set(expected)
    turn, theirs = cycle(queries), cycle(queries)
    one = take_turns(
        {
            "faiss": lambda: peer.search(next(theirs)[None], 10),
            "ours, top 10": lambda: index.search(next(turn), k=10),
            "ours, top 100": lambda: index.search(next(turn), k=100),
        },
        baseline="faiss",
        rounds=20,
    )
    many = take_turns(
        {
            "faiss": lambda: peer.search(queries, 10),
            "ours": lambda: index.search_many(queries, k=10),
        },
        baseline="faiss",
        rounds=2,
        blocks=2,
        seconds=12,
    )
    return {"one": one, "64": many}


# A whole index


def filled(documents: int, *, width: int = 384, tokens: int = 64) -> LocalIndex:
    index = LocalIndex()
    for first in range(0, documents, 5_000):
        count = min(5_000, documents - first)
        index.add(*batch(first, count, width=width, tokens=tokens))
    return index


def batch(first: int, count: int, *, width: int, tokens: int) -> tuple[list[Record], Any]:
    records = [Record(f"d{n}", f"text {n}") for n in range(first, first + count)]
    return records, _representations(count, width, tokens)


@cache
def _representations(count: int, width: int, tokens: int) -> Representations:
    # every batch has the same vectors: what is measured does not depend on them
    offsets = np.arange(0, count * tokens + 1, tokens)
    return Representations(
        dense=units(count, width),
        sparse=term_weights(count, 64),
        colbert=MultiVectors(units(count * tokens, width), offsets),
    )


def query_of(width: int, *, seed: int = 11) -> Query:
    return Query(
        "question",
        Representations(
            dense=units(1, width, seed=seed),
            sparse=term_weights(1, 12, seed=seed),
            colbert=MultiVectors.from_rows([units(QUERY_TOKENS, width, seed=seed)]),
        ),
    )


def searching(documents: int = 2_000) -> dict[str, Any]:
    """Search a small index without encoding: what the index side of a query takes."""
    index = filled(documents)
    queries = [query_of(384, seed=seed) for seed in range(20)]
    turn, plan = cycle(queries), Plan()
    return take_turns(
        {"ours": lambda: index.search(next(turn), plan, k=10)}, baseline="ours", rounds=30
    )


def adding(documents: int) -> dict[str, Any]:
    """Search without a break while 20 times 500 documents are added; the longest wait counts."""
    index, query, plan = filled(documents), query_of(384), Plan()
    batches = [batch(documents + 500 * n, 500, width=384, tokens=64) for n in range(20)]
    index.search(query, plan, k=10)
    quiet = [timed(lambda: index.search(query, plan, k=10))[0] * 1e3 for _ in range(30)]
    waits: list[float] = []
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            waits.append(timed(lambda: index.search(query, plan, k=10))[0] * 1e3)

    searcher = threading.Thread(target=search)
    searcher.start()
    adds = []
    for one in batches:
        adds.append(timed(lambda one=one: index.add(*one))[0] * 1e3)
        time.sleep(0.05)
    done.set()
    searcher.join()
    return {
        "documents": documents,
        "search_alone_ms": {"median": float(np.median(quiet)), "max": max(quiet)},
        "search_while_adding_ms": {"median": float(np.median(waits)), "max": max(waits)},
        "add_500_ms": {"median": float(np.median(adds)), "max": max(adds)},
        "raw_ms": {"searches": waits, "adds": adds},
    }


_LOAD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from speed_scoring import LocalIndex, Plan, query_of, resident
queries, plan = [query_of(384, seed=seed) for seed in range(20)], Plan()
before, start = resident(), time.perf_counter()
index = LocalIndex.load(sys.argv[1])
loaded, seconds = resident(), time.perf_counter() - start
first = time.perf_counter()
index.search(queries[0], plan, k=10)
first = time.perf_counter() - first
for query in queries: index.search(query, plan, k=10)
print(before, loaded, resident(), seconds, first)
"""


def resident() -> int:
    """Return how many bytes of this process are in memory, files that it maps included."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def memory(documents: int) -> dict[str, Any]:
    """Load an index in a process of its own, and ask it 20 questions."""
    with tempfile.TemporaryDirectory() as folder:
        index = filled(documents)
        saving = timed(partial(index.save, folder))[0]
        del index
        command = [sys.executable, "-c", _LOAD, folder, str(Path(__file__).parent)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    before, loaded, asked = (int(value) / 1e9 for value in out[:3])
    return {
        "documents": documents,
        "gigabytes_on_disk": size / 1e9,
        "resident_before_gigabytes": before,
        "resident_loaded_gigabytes": loaded,
        "resident_after_20_queries_gigabytes": asked,
        "seconds_to_save": saving,
        "seconds_to_load": float(out[3]),
        "seconds_of_first_query": float(out[4]),
    }


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "maxsim": lambda _: {
        f"{count} x 128 x {width}": maxsim(count, width)
        for width in (1_024, 384)
        for count in (200, 1_000)
    },
    "lexical": lambda options: {
        f"{count:,} documents": lexical(count) for count in (options.documents, options.most)
    },
    "bm25": lambda options: bm25(options.documents),
    "dense": lambda options: dense(options.documents),
    "searching": lambda _: {"2,000 documents": searching()},
    "adding": lambda options: adding(options.documents),
    "memory": lambda options: memory(options.documents),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--most", type=int, default=1_000_000, help="documents of lexical search")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--result", type=Path, default=RESULTS / "speed_scoring.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {**read_result(options.result), "machine": machine(threads=options.threads)}
    for name in options.only:
        seconds, result[name] = timed(lambda name=name: PARTS[name](options))
        _print(name, result[name])
        print(f"{name}: {seconds:.0f} s", flush=True)
    write_result(options.result, result)


def _print(name: str, found: dict[str, Any]) -> None:
    if "rows" in found:
        print(shown(name, found))
    elif all(isinstance(part, dict) and "rows" in part for part in found.values()):
        for part, result in found.items():
            print(shown(f"{name}: {part}", result))
    else:
        print({key: value for key, value in found.items() if key != "raw_ms"})


if __name__ == "__main__":
    main()
