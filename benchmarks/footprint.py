"""What 20,000 chunks weigh with m3-mini: memory, disk and seconds, with and without ColBERT.

The chunks are the docstrings of the running Python's standard library and of numpy, scipy,
torch and transformers, read from their files and cut at paragraphs to about 600 characters.
They are encoded once, into ``--work``, and an interrupted run goes on where it stopped; with
``--distinct`` fewer are encoded, and each stands in the collection several times, which changes
neither its size nor what a search does. Each figure is then taken in a process of its own, so
that no memory of another step is in it::

    python benchmarks/footprint.py --work FOLDER
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import resource
import statistics
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from common import (
    RESULTS,
    machine,
    passages,
    spread,
    standard_library_questions,
    timed,
    write_result,
)

from m3_retrievers import HybridRetriever, HybridWeights, M3Encoder, Representations
from m3_retrievers.types.hits import Record
from m3_retrievers.types.packed import MultiVectors

MODEL = "m3-mini"
PACKAGES = ("numpy", "scipy", "torch", "transformers")
LONGEST = 600  # characters a chunk; a paragraph is never cut
SHARD = 500
TEXTS = "texts.json"  # read again by each step: to find them takes longer than most steps
WARM_UP = 5
VARIANTS = {
    "with ColBERT": HybridWeights(dense=0.5, sparse=0.5, colbert=1.0),
    "without ColBERT": HybridWeights(dense=0.5, sparse=0.5, colbert=0.0),
}


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    if options.step is not None:
        print(json.dumps(STEPS[options.step](options)))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    if not (options.work / TEXTS).exists():
        (options.work / TEXTS).write_text(json.dumps(chunks(options.distinct)))
    result: dict[str, Any] = {"machine": machine(threads=options.threads)}
    result["encoding"] = encode(options)
    result["base"] = _apart("base")
    for variant in VARIANTS:
        result[variant] = {step: _apart(step, variant) for step in ("encoding", "build", "search")}
        print(variant, json.dumps(result[variant], indent=1), flush=True)
    write_result(options.result, result)


# The texts


def chunks(count: int) -> list[str]:
    """Return distinct chunks of 200 to 900 characters, the same for the same packages."""
    roots = [Path(sysconfig.get_path("stdlib"))]
    roots += [Path(sysconfig.get_path("purelib")) / package for package in PACKAGES]
    found = {
        chunk
        for root in roots
        for text in _docstrings(root)
        for chunk in passages(text, size=LONGEST)
    }
    ordered = sorted(chunk for chunk in found if 200 <= len(chunk) <= 900)
    random.Random(0).shuffle(ordered)
    if len(ordered) < count:
        raise SystemExit(f"found {len(ordered)} chunks, {count} were asked for")
    return ordered[:count]


def _docstrings(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.py")):
        if {"test", "tests", "site-packages"} & set(path.relative_to(root).parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of somebody else's escapes
                tree = ast.parse(path.read_bytes())
        except SyntaxError:
            continue  # files that are meant not to parse
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


# The steps


def texts_of(options: argparse.Namespace) -> list[str]:
    """Return the texts that were chosen for ``--work``."""
    texts: list[str] = json.loads((options.work / TEXTS).read_text())
    if len(texts) < options.distinct:
        raise SystemExit(f"{options.work / TEXTS} holds {len(texts)} texts: remove the folder")
    return texts[: options.distinct]


def encode(options: argparse.Namespace) -> dict[str, Any]:
    """Encode what ``--work`` does not hold yet; return lengths and the seconds of each shard."""
    texts = texts_of(options)
    encoder = None
    seconds, lengths = [], []
    for first in range(0, len(texts), SHARD):
        path = options.work / f"{first:06}.npz"
        if not path.exists():
            encoder = encoder or M3Encoder.from_pretrained(
                MODEL, device="cpu", precision="fp32", keep=None
            )
            some = texts[first : first + SHARD]
            took, made = timed(lambda e=encoder, t=some: e.encode_documents(t))
            _write(path, made, took)
            print(f"{path.name}: {len(some) / took:.0f} texts/s", flush=True)
        with np.load(path) as shard:
            seconds.append(float(shard["seconds"]))
            lengths += np.diff(shard["offsets"]).tolist()
    return {
        "documents": options.documents,
        "distinct": options.distinct,
        "characters": spread([len(text) for text in texts]),
        "token_vectors": spread(lengths),
        "shards_s": seconds,
    }


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Return how fast the first texts are encoded, and the memory of the process that does it."""
    texts = texts_of(options)[: options.sample]
    retriever = _retriever(options)
    retriever.add(texts[:100])
    took, _ = timed(lambda: retriever.add(texts[100:]))
    return {"texts_a_second": (len(texts) - 100) / took, "peak_rss_mb": _peak_mb()}


def build(options: argparse.Namespace) -> dict[str, Any]:
    """Return what adding everything and saving it takes; encoding is not in it."""
    retriever = _retriever(options)
    texts = texts_of(options)
    added = 0.0
    for start in range(0, options.documents, SHARD):
        first = start % options.distinct
        some = texts[first : first + SHARD]
        records = [Record(str(start + at), text) for at, text in enumerate(some)]
        made = _read(options.work / f"{first:06}.npz")
        took, _ = timed(lambda r=records, m=made: retriever.index.add(r, m))
        added += took
    folder = options.work / options.variant.replace(" ", "-")
    saved, _ = timed(lambda: retriever.save(folder))
    sizes = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return {"add_s": added, "save_s": saved, "disk_mb": sum(sizes.values()) / 1e6, "files": sizes}


def search(options: argparse.Namespace) -> dict[str, Any]:
    """Return what loading takes, what it weighs, and how long a question takes, encoded too."""
    encoder = M3Encoder.from_pretrained(MODEL, device="cpu", precision="fp32", keep=None)
    encoder.encode_query("warm up")
    before = _rss_mb()
    folder = options.work / options.variant.replace(" ", "-")
    loaded, retriever = timed(lambda: HybridRetriever.load(folder, encoder))
    first, _ = timed(lambda: retriever.search("how do I read a csv file?", k=10))
    questions = standard_library_questions(options.queries + WARM_UP)
    for question in questions[:WARM_UP]:
        retriever.search(question, k=10)
    times = [timed(lambda q=q: retriever.search(q, k=10))[0] for q in questions[WARM_UP:]]
    return {
        "load_s": loaded,
        "first_query_s": first,
        "queries_s": times,
        "median_query_s": statistics.median(times),
        "p95_query_s": sorted(times)[int(0.95 * (len(times) - 1))],
        "rss_before_mb": before,
        "rss_after_mb": _rss_mb(),
        "index_mb": _rss_mb() - before,
        "peak_rss_mb": _peak_mb(),
    }


def base(_options: argparse.Namespace) -> dict[str, Any]:
    """Return what the process weighs with torch and the model, and no index."""
    took, encoder = timed(
        lambda: M3Encoder.from_pretrained(MODEL, device="cpu", precision="fp32", keep=None)
    )
    encoder.encode_query("warm up")
    return {"load_model_s": took, "rss_mb": _rss_mb()}


STEPS = {"base": base, "encoding": speed, "build": build, "search": search}


def _retriever(options: argparse.Namespace) -> HybridRetriever:
    encoder = M3Encoder.from_pretrained(MODEL, device="cpu", precision="fp32", keep=None)
    return HybridRetriever(encoder, weights=VARIANTS[options.variant])


def _write(path: Path, made: Representations, seconds: float) -> None:
    sparse, colbert = made.require("sparse"), made.require("colbert")
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(
            file,
            dense=made.require("dense"),
            data=sparse.data,
            indices=sparse.indices,
            indptr=sparse.indptr,
            shape=sparse.shape,
            vectors=colbert.vectors.astype(np.float16),
            offsets=colbert.offsets,
            seconds=seconds,
        )
    part.rename(path)


def _read(path: Path) -> Representations:
    with np.load(path) as shard:
        parts = (shard["data"], shard["indices"], shard["indptr"])
        sparse = sp.csr_array(parts, shape=tuple(shard["shape"]))
        colbert = MultiVectors(shard["vectors"], shard["offsets"])
        return Representations(dense=shard["dense"], sparse=sparse, colbert=colbert)


def _apart(step: str, variant: str | None = None) -> dict[str, Any]:
    """Return what a step reports from a process of its own."""
    command = [sys.executable, *sys.argv, "--step", step]
    command += ["--variant", variant] if variant else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _rss_mb() -> float:
    """Return the memory the process has now; Linux alone says so."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="where the vectors are kept")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--distinct", type=int, help="multiple of 500; None encodes all documents")
    parser.add_argument("--sample", type=int, default=600, help="texts whose encoding is timed")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--result", type=Path, default=RESULTS / "footprint.json")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.distinct = options.distinct or options.documents
    return options


if __name__ == "__main__":
    main()
