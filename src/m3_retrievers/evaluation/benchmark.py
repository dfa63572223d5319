"""A model on a test collection: every mode by one of two protocols.

``"union"`` is ours: a single mode ranks every document; a hybrid ranks the union of what its
legs recall, every missing score computed exactly. ``"paper"`` is that of BGE-M3 (arXiv
2402.03216, section 4 and appendix): dense and sparse to depth 1000; Dense+Sparse over the union,
where a score a leg did not recall counts 0; Multi-vector and All re-rank the dense top 200.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from m3_retrievers import __version__, scoring
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.evaluation.datasets import Collection
from m3_retrievers.evaluation.metrics import MEASURES, measure
from m3_retrievers.evaluation.report import Evaluation, Run
from m3_retrievers.evaluation.scores import BLOCK, Block, Scorer
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.packed import Floats
from m3_retrievers.ranking import top_k
from m3_retrievers.records import check_k
from m3_retrievers.representations import HybridWeights, Mode, Output, Representations

Protocol: TypeAlias = Literal["union", "paper"]
# Each row of the paper's tables: the modes whose scores it adds.
PARTS: Mapping[str, tuple[Mode, ...]] = {
    "dense": ("dense",),
    "sparse": ("sparse",),
    "colbert": ("colbert",),
    "bm25": ("bm25",),
    "dense+sparse": ("dense", "sparse"),
    "dense+bm25": ("dense", "bm25"),
    "all": ("dense", "sparse", "colbert"),
}
_PAPER_DEPTH = 1000
_PAPER_RERANKED = 200
_SPARSE_NOTE = "no sparse head: the lexical part of 'all' is BM25"


def evaluate(
    encoder: M3Encoder,
    collection: Collection,
    *,
    modes: Sequence[str] | None = None,
    protocol: Protocol = "union",
    weights: HybridWeights | None = None,
    recall: int = 100,
    depth: int = 100,
    measures: Sequence[str] = MEASURES,
    representations: tuple[Representations, Representations] | None = None,
    bm25: BM25 | None = None,
    show_progress: bool = False,
) -> Evaluation:
    """Return what each mode retrieves and how good it is.

    modes: of ``PARTS``; None is all that the model can do. weights: None is the model's own.
    recall: documents each leg of a hybrid recalls (``"union"``). depth: documents kept a query;
    at least what the measures look at. measures: names as ir-measures writes them.
    representations: of queries and documents, from ``represent``, to save encoding again.
    bm25: None counts words, English stop words dropped.

    Raises InputError for an unknown mode, protocol or measure, MissingExtraError without the
    extra ``evaluate``.
    """
    if protocol not in get_args(Protocol):
        raise InputError(f"protocol expects 'union' or 'paper', got {protocol!r}.")
    check_k(recall, name="recall")
    check_k(depth, name="depth")
    parts, notes = _parts(modes, encoder)
    weights = weights or encoder.default_weights
    needed = tuple(dict.fromkeys(mode for names in parts.values() for mode in names))
    queries, documents = representations or represent(
        encoder, collection, outputs=needed, show_progress=show_progress
    )
    scorer = Scorer(
        queries,
        documents,
        query_texts=list(collection.queries.values()),
        document_texts=list(collection.documents.values()),
        modes=needed,
        bm25=bm25,
    )
    ids = np.array(list(collection.documents), object)
    query_ids = list(collection.queries)
    runs: dict[str, Run] = {name: {} for name in parts}
    blocks = -(-len(query_ids) // BLOCK)
    for block in tqdm(scorer, total=blocks, disable=not show_progress, desc="score"):
        for name, names in parts.items():
            for row, (rows, scores) in enumerate(
                _ranked(block, names, weights, protocol, recall=recall, depth=depth)
            ):
                runs[name][query_ids[block.first + row]] = (ids[rows].tolist(), scores.tolist())
    return Evaluation(
        collection=collection.name,
        split=collection.split,
        documents=len(collection.documents),
        model=encoder.name,
        fingerprint=encoder.fingerprint,
        version=__version__,
        protocol=protocol,
        weights=weights,
        recall=recall if protocol == "union" else _PAPER_DEPTH,
        notes=notes,
        values={name: measure(run, collection.qrels, measures) for name, run in runs.items()},
        query_ids=tuple(query_ids),
        runs=runs,
    )


def represent(
    encoder: M3Encoder,
    collection: Collection,
    *,
    outputs: Sequence[str] | None = None,
    show_progress: bool = False,
) -> tuple[Representations, Representations]:
    """Return the representations of a collection's queries and documents.

    ColBERT vectors are kept as float16, as an index keeps them.
    """
    wanted: tuple[Output, ...] = tuple(
        mode for mode in encoder.outputs if outputs is None or mode in outputs
    )
    if not wanted:
        return Representations(), Representations()
    queries = encoder.encode_queries(list(collection.queries.values()), outputs=wanted)
    chunks = []
    texts = list(collection.documents.values())
    bar = tqdm(total=len(texts), disable=not show_progress, desc="encode", unit="doc")
    for chunk in encoder.iter_documents(texts, outputs=wanted):
        if chunk.colbert is not None:
            chunk = replace(chunk, colbert=chunk.colbert.astype("float16"))
        chunks.append(chunk)
        bar.update(len(chunk))
    bar.close()
    return queries, Representations.concatenate(chunks)


def _parts(
    modes: Sequence[str] | None, encoder: M3Encoder
) -> tuple[dict[str, tuple[Mode, ...]], tuple[str, ...]]:
    """Return the modes that can be run, and what a reader must know about them."""
    asked = list(PARTS) if modes is None else list(modes)
    unknown = [name for name in asked if name not in PARTS]
    if unknown or not asked:
        raise InputError(f"modes expects some of {list(PARTS)}, got {asked!r}.")
    has = {*encoder.outputs, "bm25"}
    found: dict[str, tuple[Mode, ...]] = {}
    notes = []
    for name in asked:
        names = PARTS[name]
        if name == "all" and "sparse" not in has:
            names = ("dense", "bm25", "colbert")
            notes.append(_SPARSE_NOTE)
        if has.issuperset(names):
            found[name] = names
        elif modes is not None:
            raise InputError(f"mode {name!r} expects {names}, got a model with {encoder.outputs}.")
        else:
            notes.append(f"left out: {name}")
    return found, tuple(notes)


def _ranked(
    block: Block,
    names: tuple[Mode, ...],
    weights: HybridWeights,
    protocol: Protocol,
    *,
    recall: int,
    depth: int,
) -> list[tuple[NDArray[np.int64], Floats]]:
    """Return for each query of a block the best rows and their scores."""
    scales = {mode: block.scales[:, None] if mode == "bm25" else 1.0 for mode in names}
    if len(names) == 1 and (protocol == "union" or names[0] != "colbert"):
        scores = block.scores[names[0]]
        # a document without a shared term is not retrieved, it is only left over
        lexical = names[0] in ("sparse", "bm25")
        found = scores > 0 if lexical else np.ones(scores.shape, bool)
        return [_best(row, mask, depth) for row, mask in zip(scores, found, strict=True)]
    shares: dict[str, Floats] = {mode: block.scores[mode] * scales[mode] for mode in names}
    if len(names) > 1:
        weights = _positive(weights, names)
    if protocol == "paper" and "colbert" in names:
        found = _recalled(block.scores["dense"], _PAPER_RERANKED)
    else:
        legs = [mode for mode in names if mode != "colbert"]
        reached = _PAPER_DEPTH if protocol == "paper" else recall
        recalled = {leg: _recalled(block.scores[leg], reached) for leg in legs}
        found = np.logical_or.reduce(list(recalled.values()))
        if protocol == "paper":
            shares = {leg: np.where(recalled[leg], shares[leg], 0.0) for leg in legs}
    total = shares[names[0]] if len(names) == 1 else scoring.hybrid(shares, weights)
    return [_best(row, mask, depth) for row, mask in zip(total, found, strict=True)]


def _recalled(scores: Floats, depth: int) -> NDArray[np.bool_]:
    """Return (b, n) True for the best ``depth`` documents of each query."""
    found = np.zeros(scores.shape, bool)
    for row, values in enumerate(scores):
        found[row, top_k(values, min(depth, len(values)))] = True
    return found


def _best(scores: Floats, mask: NDArray[np.bool_], depth: int) -> tuple[NDArray[np.int64], Floats]:
    rows = top_k(scores, depth, candidates=mask)
    return rows, scores[rows]


def _positive(weights: HybridWeights, names: tuple[Mode, ...]) -> HybridWeights:
    """Return the weights for some modes; InputError where all of them weigh 0."""
    own = {"dense": weights.dense, "sparse": weights.sparse, "colbert": weights.colbert}
    if not any(own["sparse" if mode == "bm25" else mode] > 0 for mode in names):
        raise InputError(f"{names} expect a weight above 0, got {weights}.")
    return weights
