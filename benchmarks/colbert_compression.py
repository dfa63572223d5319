"""What ColBERT vectors lose and weigh, compressed: dtypes, and token pooling by a factor.

Each collection is encoded once, ColBERT in float32, into ``--work`` (some GB, outside the
repository); ``--encode-only`` ends there. Then every way to keep the vectors ranks the same
candidates, those that the dense and the sparse leg recall to depth 100::

    python benchmarks/colbert_compression.py --work FOLDER --data DATA/cranfield DATA/cacm …
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import sparse as sp

from m3_retrievers import M3Encoder
from m3_retrievers.evaluation import Collection, read_collection
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.representations import Representations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1_000, help="at most, a collection")
    parser.add_argument("--documents", type=int, default=100_000, help="at most, a collection")
    parser.add_argument("--encode-only", action="store_true")
    options = parser.parse_args()
    encoder = M3Encoder.from_pretrained(
        options.model, device="cpu", document_max_length=options.max_length
    )
    for folder in options.data:
        whole = read_collection(folder, name=folder.name)
        collection = cut(whole, queries=options.queries, documents=options.documents)
        encoded(encoder, collection, options.work)


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
    return read(folder / "queries"), read(folder / "documents")


def write(path: Path, made: Representations) -> None:
    np.save(path.with_suffix(".dense.npy"), made.require("dense"))
    np.save(path.with_suffix(".colbert.npy"), made.require("colbert").vectors)
    np.save(path.with_suffix(".offsets.npy"), made.require("colbert").offsets)
    sp.save_npz(path.with_suffix(".sparse.npz"), made.require("sparse"))


def read(path: Path) -> Representations:
    vectors = np.load(path.with_suffix(".colbert.npy"), mmap_mode="r")
    return Representations(
        dense=np.load(path.with_suffix(".dense.npy")),
        sparse=sp.csr_array(sp.load_npz(path.with_suffix(".sparse.npz"))),
        colbert=MultiVectors(vectors, np.load(path.with_suffix(".offsets.npy"))),
    )


if __name__ == "__main__":
    main()
