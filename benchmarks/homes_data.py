"""Documents for the benchmark of homes: synthetic ones of any number, and real ones with m3-mini.

Synthetic vectors gather around topics, as those of texts do: vectors at random in all
directions would have no neighbours, and every approximate index would look bad.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from common import standard_library_questions, standard_library_texts
from scipy import sparse as sp

from m3_retrievers import M3Encoder, Representations
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors

BATCH = 1000
TOPICS = 500
LANGUAGES = ("en", "de", "fr", "ja")


@dataclass(frozen=True)
class Shape:
    """What a synthetic document has; colbert 0 leaves the token vectors out."""

    dense: int = 384
    terms: int = 40
    vocabulary: int = 30_000
    colbert: int = 32
    width: int = 64

    @cached_property
    def centres(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per topic: its dense direction, the terms it prefers, and eight token directions."""
        rng = np.random.default_rng(7)
        dense = rng.standard_normal((TOPICS, self.dense)).astype(np.float32)
        terms = rng.integers(0, self.vocabulary, (TOPICS, 200))
        tokens = rng.standard_normal((TOPICS, 8, self.width)).astype(np.float32)
        return _unit(dense), terms, _unit(tokens)

    def represent(self, count: int, *, seed: int, tokens: int | None = None) -> Representations:
        """Return the representations of so many texts, the same for a seed."""
        rng = np.random.default_rng(seed)
        topics = rng.integers(0, TOPICS, count)
        dense, preferred, directions = self.centres
        noise = rng.standard_normal((count, self.dense)).astype(np.float32)
        made = {"dense": _unit(dense[topics] + noise * (1.2 / self.dense**0.5))}
        common = (self.vocabulary * rng.random((count, self.terms // 4)) ** 3).astype(np.int64)
        picked = rng.integers(0, 200, (count, self.terms - self.terms // 4))
        own = preferred[topics[:, None], picked]
        columns = np.concatenate([common, own], axis=1)
        rows = np.repeat(np.arange(count), columns.shape[1])
        weights = rng.uniform(0.05, 0.4, columns.size).astype(np.float32)
        shape = (count, self.vocabulary)
        made["sparse"] = sp.csr_array((weights, (rows, columns.ravel())), shape=shape)
        made["sparse"].sum_duplicates()
        if self.colbert:
            n = self.colbert if tokens is None else tokens
            chosen = directions[topics[:, None], rng.integers(0, 8, (count, n))]
            noise = rng.standard_normal(chosen.shape).astype(np.float32) / self.width**0.5
            vectors = _unit(chosen + noise).reshape(-1, self.width).astype(np.float16)
            made["colbert"] = MultiVectors(vectors, np.arange(0, count * n + 1, n))
        return Representations(**made)

    def batches(self, count: int) -> Iterator[tuple[list[Record], Representations]]:
        """Yield documents with their representations, a batch at a time."""
        for first in range(0, count, BATCH):
            size = min(BATCH, count - first)
            yield records(first, size), self.represent(size, seed=1_000_000 + first)

    def queries(self, count: int) -> list[Query]:
        """Return questions of eight tokens and as many terms."""
        few = Shape(self.dense, 8, self.vocabulary, self.colbert, self.width)
        made = few.represent(count, seed=3, tokens=8)
        return [Query(f"question {at}", made[at]) for at in range(count)]


def records(first: int, count: int) -> list[Record]:
    """Return records with a text of 600 characters and two fields to filter by."""
    return [
        Record(
            f"document-{at:08}",
            f"passage {at} " + "lorem ipsum dolor " * 33,
            {"language": LANGUAGES[at % 4], "year": 2000 + at % 25},
        )
        for at in range(first, first + count)
    ]


def real(
    work: Path, *, documents: int, queries: int
) -> tuple[list[Record], Representations, list[Query]]:
    """Return passages of the standard library and questions, encoded once by m3-mini."""
    kept = work / "texts.json"  # to find them takes longer than most homes need
    if not kept.exists():
        found = standard_library_texts(documents), standard_library_questions(queries)
        kept.write_text(json.dumps(found))
    texts, asked = json.loads(kept.read_text())

    def encoder() -> M3Encoder:
        return M3Encoder.from_pretrained("m3-mini", document_max_length=32)

    encoded = _kept(work / "documents", lambda: encoder().encode_documents(texts))
    questions = _kept(work / "queries", lambda: encoder().encode_queries(asked))
    made = [Record(f"text-{at:05}", text, {"at": at}) for at, text in enumerate(texts)]
    return made, encoded, [Query(text, questions[at]) for at, text in enumerate(asked)]


def _kept(folder: Path, encode) -> Representations:
    """Return representations from a file, where they were written by an earlier run."""
    path = folder.with_suffix(".npz")
    if not path.exists():
        made = encode()
        sparse = sp.csr_array(made.sparse)
        np.savez(
            path,
            dense=made.dense,
            data=sparse.data,
            indices=sparse.indices,
            indptr=sparse.indptr,
            shape=sparse.shape,
            vectors=made.colbert.vectors.astype(np.float16),
            offsets=made.colbert.offsets,
        )
    held = np.load(path)
    return Representations(
        dense=held["dense"],
        sparse=sp.csr_array((held["data"], held["indices"], held["indptr"]), tuple(held["shape"])),
        colbert=MultiVectors(held["vectors"], held["offsets"]),
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
