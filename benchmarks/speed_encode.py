"""Encoding beside FlagEmbedding and sentence-transformers, with one checkpoint in one process.

One query at BGE-M3's full size; 64 passages with a small checkpoint; m3-mini's passages of 256
tokens; one long text; many callers at once; the start of a process. All outputs unless it says so,
float32 for the peers; ours keeps nothing of what it computed. Rows check that both computed
the same. Full-size and small checkpoints are random, and written where they are absent::

    python benchmarks/speed_encode.py --models FOLDER --threads 2
    python benchmarks/speed_encode.py --models FOLDER --only query passages
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    RESULTS,
    machine,
    read_result,
    standard_library_questions,
    standard_library_texts,
    write_result,
)
from full_size import write_full_size_m3, write_small_m3
from processor_limits import least_ms
from taking_turns import shown, take_turns

from m3_retrievers import HybridRetriever, M3Encoder
from m3_retrievers.errors import TruncationWarning

QUESTION = "how do I read the rows of a file in a library"
LONG = 40.0  # seconds that a row with slow peers may take


@cache
def ours(name: str, precision: str) -> M3Encoder:
    return M3Encoder.from_pretrained(name, device="cpu", precision=precision, keep=None)  # type: ignore[arg-type]


@cache
def flag_embedding(folder: str) -> Any:
    from FlagEmbedding import BGEM3FlagModel

    return BGEM3FlagModel(folder, use_fp16=False, devices="cpu")


def theirs(folder: str, texts: Sequence[str], length: int, batch: int | None = None) -> Any:
    return flag_embedding(folder).encode(
        list(texts),
        batch_size=batch,
        max_length=length,
        return_dense=True,
        return_sparse=True,
        return_colbert_vecs=True,
    )


def compared(folder: str, texts: Sequence[str], length: int) -> dict[str, Callable[[], Any]]:
    """Return the peer's work and ours in each precision, which were held equal before."""
    exact, peer = ours(folder, "fp32").encode_documents(texts), theirs(folder, texts, length)
    np.testing.assert_allclose(exact.dense, peer["dense_vecs"], atol=2e-5)
    assert exact.colbert is not None
    vectors = np.concatenate(peer["colbert_vecs"])
    np.testing.assert_allclose(exact.colbert.vectors, vectors, atol=2e-4)
    works: dict[str, Callable[[], Any]] = {"FlagEmbedding": partial(theirs, folder, texts, length)}
    for precision in ("fp32", "bf16", "int8"):
        works[f"ours, {precision}"] = partial(ours(folder, precision).encode_documents, texts)
    return works


def least(folder: str, texts: Sequence[str]) -> dict[str, float]:
    """Return what the products of these texts take on this processor at the least."""
    encoder = ours(folder, "fp32")
    tokens = encoder.measure(texts, query=False).tolist()
    return {
        f"ours, {precision}": least_ms(encoder, tokens, precision, threads=torch.get_num_threads())
        for precision in ("fp32", "bf16")
    }


def query(models: Path) -> dict[str, Any]:
    """One query of 14 tokens, 568 million parameters."""
    folder = str(write_full_size_m3(models / "full"))
    text = of_tokens(ours(folder, "fp32"), 14)[0]
    found = take_turns(
        compared(folder, [text], 512), baseline="FlagEmbedding", rounds=5, seconds=LONG
    )
    found["least_ms"] = least(folder, [text])
    for name in (ours, flag_embedding):
        name.cache_clear()  # 2.3 GB each
    return found


def passages(models: Path) -> dict[str, Any]:
    """64 passages of 40 to 128 tokens, small checkpoint."""
    folder = str(write_small_m3(models / "small"))
    lengths = np.random.default_rng(0).integers(40, 129, 64)
    texts = [of_tokens(ours(folder, "fp32"), int(n), seed=at)[0] for at, n in enumerate(lengths)]
    works = compared(folder, texts, 512)
    works["FlagEmbedding, batches of 32"] = partial(theirs, folder, texts, 512, 32)
    found = take_turns(works, baseline="FlagEmbedding", rounds=2, seconds=LONG)
    return {**found, "least_ms": least(folder, texts)}


def mini(_: Path) -> dict[str, Any]:
    """32 passages of 256 tokens with m3-mini; sentence-transformers makes dense vectors alone."""
    from sentence_transformers import SentenceTransformer

    texts = of_tokens(ours("m3-mini", "fp32"), 256, count=32)
    peer = SentenceTransformer(str(ours("m3-mini/backbone", "fp32").source.folder), device="cpu")
    peer.max_seq_length = 256
    alone = ours("m3-mini/backbone", "fp32").encode_documents(texts, outputs=("dense",)).dense
    np.testing.assert_allclose(alone, peer.encode(texts, normalize_embeddings=True), atol=2e-5)
    works: dict[str, Callable[[], Any]] = {
        "sentence-transformers, dense": partial(peer.encode, texts, show_progress_bar=False)
    }
    for precision in ("fp32", "bf16", "int8"):
        works[f"ours, {precision}"] = partial(ours("m3-mini", precision).encode_documents, texts)
    found = take_turns(works, baseline="sentence-transformers, dense", rounds=3, seconds=LONG)
    return {**found, "least_ms": least("m3-mini", texts)}


def long(models: Path, tokens: int) -> dict[str, Any]:
    """Measure one text of so many tokens, small checkpoint."""
    folder = str(write_small_m3(models / "small"))
    text = of_tokens(ours(folder, "fp32"), tokens)
    works = compared(folder, text, 8192)
    rounds = 1 if tokens > 4_000 else 3
    found = take_turns(works, baseline="FlagEmbedding", rounds=rounds, blocks=2, seconds=LONG)
    return {**found, "least_ms": least(folder, text)}


def callers(_: Path, *, documents: int = 1_000, each: float = 6.0) -> dict[str, Any]:
    """Threads that search m3-mini's index, each with questions of its own, at once."""
    encoder = ours("m3-mini", "fp32")
    retriever = HybridRetriever(encoder)
    with_bf16 = ours("m3-mini", "bf16").encode_documents(standard_library_texts(documents))
    retriever.index.add(records(documents), with_bf16)
    questions = standard_library_questions(512)
    retriever.search(questions[0])  # loads, or compiles, what was not needed before
    found: dict[str, Any] = {"documents": documents, "rows": {}}
    for threads in (1, 8, 64, 1):
        found["rows"].setdefault(str(threads), []).append(
            served(retriever, questions, threads, each)
        )
    for threads, rows in found["rows"].items():
        print(f"  {threads} callers: {rows}", flush=True)
    return found


def records(documents: int) -> Any:
    from m3_retrievers.types.hits import Record

    texts = standard_library_texts(documents)
    return [Record(str(number), text) for number, text in enumerate(texts)]


def served(
    retriever: HybridRetriever, questions: Sequence[str], threads: int, seconds: float
) -> dict[str, float]:
    times: list[float] = []
    stop = time.perf_counter() + seconds

    def ask(first: int) -> None:
        number = first
        while time.perf_counter() < stop:
            start = time.perf_counter()
            retriever.search(questions[number % len(questions)], k=10)
            times.append(time.perf_counter() - start)
            number += 7

    callers = [threading.Thread(target=ask, args=(place * 31,)) for place in range(threads)]
    start = time.perf_counter()
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    at = np.quantile(times, [0.5, 0.99])
    return {
        "queries_a_second": len(times) / (time.perf_counter() - start),
        "p50_ms": 1e3 * float(at[0]),
        "p99_ms": 1e3 * float(at[1]),
    }


_FIRST_HIT = """
import time
from m3_retrievers import HybridRetriever, M3Encoder
encoder = M3Encoder.from_pretrained("m3-mini", device="cpu")
assert HybridRetriever.load({folder!r}, encoder).search("how do I read a file?", k=3)
"""


def start(_: Path, *, rounds: int = 3) -> dict[str, Any]:
    """From the start of a process to its first hit, and what importing takes."""
    with tempfile.TemporaryDirectory() as folder:
        retriever = HybridRetriever(ours("m3-mini", "fp32"))
        retriever.add(standard_library_texts(64))
        retriever.save(folder)
        works: dict[str, Callable[[], Any]] = {
            "FlagEmbedding's import": partial(_process, "from FlagEmbedding import BGEM3FlagModel"),
            "first hit, saved index": partial(_process, _FIRST_HIT.format(folder=folder)),
            "import m3_retrievers": partial(_process, "import m3_retrievers"),
            "python alone": partial(_process, "pass"),
        }
        return take_turns(
            works, baseline="FlagEmbedding's import", rounds=rounds, blocks=1, seconds=LONG
        )


def _process(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


_MEMORY = """
import gc, threading
from m3_retrievers import M3Encoder
def resident():
    held = dict(line.split(":") for line in open("/proc/self/status"))
    return [int(held[name].split()[0]) // 1024 for name in ("RssAnon", "RssFile")]
encoder = M3Encoder.from_pretrained({folder!r}, device="cpu", precision={precision!r}, keep=None)
encoder.encode_query("what is this")
gc.collect()
before, most, done = resident(), [0, 0], threading.Event()
def watch():
    while not done.wait(0.01):
        most[:] = map(max, most, resident())
watching = threading.Thread(target=watch)
watching.start()
encoder.encode_documents([{text!r}])
done.set()
watching.join()
print(*before, *most)
"""


def memory(models: Path) -> dict[str, Any]:
    """Megabytes of the full-size model after a query, and what 8,191 tokens add at the most.

    Its own memory and pages of the mapped file are told apart: the system gives the latter up
    when another needs them, and maps up to 2 MB around a row that is read.
    """
    folder = str(write_full_size_m3(models / "full"))
    text = of_tokens(ours(folder, "fp32"), 8191)[0]
    ours.cache_clear()
    found = {}
    for precision in ("fp32", "bf16"):
        code = _MEMORY.format(folder=folder, precision=precision, text=text)
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        own, mapped, most_own, most_mapped = map(int, done.stdout.split())
        found[precision] = {
            "own_mb": own,
            "mapped_mb": mapped,
            "long_text_adds_own_mb": most_own - own,
            "long_text_adds_mapped_mb": most_mapped - mapped,
        }
        print(f"  {precision}: {found[precision]}", flush=True)
    return {"rows": found}


@cache
def _words() -> list[str]:
    return " ".join(standard_library_texts(200)).split()


def of_tokens(encoder: M3Encoder, tokens: int, *, count: int = 1, seed: int = 0) -> list[str]:
    """Return texts of exactly so many tokens, frame included."""
    words = _words()
    made = []
    for number in range(seed, seed + count):
        step = number * 131 % (len(words) // 2)
        stream = (words[step:] + words) * (1 + tokens // len(words))
        size = tokens
        while encoder.measure([" ".join(stream[:size])], query=False)[0] > tokens:
            size -= max(1, size // 64)
        text = " ".join(stream[:size])
        while encoder.measure([text], query=False)[0] < tokens:
            text += " a"
        made.append(text)
    return made


ROWS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "start": start,
    "passages": passages,
    "mini": mini,
    "long 2,048": partial(long, tokens=2_048),
    "long 8,192": partial(long, tokens=8_192),
    "callers": callers,
    "query": query,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="where checkpoints are kept")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--result", type=Path, default=RESULTS / "speed_encode.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    warnings.simplefilter("ignore", TruncationWarning)
    result = {"rows": {}, **read_result(options.result)}
    result["machine"] = machine(threads=options.threads)
    for name in options.only:
        begun = time.perf_counter()
        found = result["rows"][name] = ROWS[name](options.models)
        if "raw_ms" in found:
            print(shown(name, found))
        print(f"  ({name}: {time.perf_counter() - begun:.0f} s)", flush=True)
        write_result(options.result, result)  # what is done stays, whatever comes


if __name__ == "__main__":
    main()
