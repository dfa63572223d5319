"""A model on a test collection: every mode by one of two protocols.

``"union"`` is ours: a single mode ranks every document; a hybrid ranks the union of what its
legs recall, every missing score computed exactly. ``"paper"`` is that of BGE-M3 (arXiv
2402.03216, section 4 and appendix): dense and sparse to depth 1000; Dense+Sparse over the union,
where a score a leg did not recall counts 0; Multi-vector and All re-rank the dense top 200.
In both, a document that shares no term with a query is not retrieved by a lexical leg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from m3_retrievers import scoring
from m3_retrievers.checks import check_k
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.evaluation.datasets import Collection
from m3_retrievers.evaluation.metrics import MEASURES, measure, reach
from m3_retrievers.evaluation.published import published
from m3_retrievers.evaluation.report import Evaluation, Run
from m3_retrievers.evaluation.scores import BLOCK, Block, Scorer, word_bm25
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.scoring.top import top_k
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import HybridWeights, Mode
from m3_retrievers.types.representations import Output, Representations

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
# Documents kept a query, where no measure looks further.
_KEPT = 100
_PACKAGES = ("m3-retrievers", "torch", "transformers", "ir-measures")


def evaluate(
    encoder: M3Encoder,
    collection: Collection,
    *,
    modes: Sequence[str] | None = None,
    protocol: Protocol = "union",
    weights: HybridWeights | None = None,
    recall: int = 100,
    depth: int | None = None,
    measures: Sequence[str] | None = None,
    representations: tuple[Representations, Representations] | None = None,
    bm25: BM25 | None = None,
    show_progress: bool = False,
) -> Evaluation:
    """Return what each mode retrieves and how good it is.

    modes: of ``PARTS``; None is all that the model can do. weights: None is the model's own.
    recall: documents each leg of a hybrid recalls (``"union"``). depth: documents kept a query;
    None is 100, or as far as the measures look. measures: names as ir-measures writes them; None
    is nDCG@10, R@100, RR@10 and that of the published figures. representations: of queries and
    documents, from ``represent``, to save encoding again. bm25: None counts words, English stop
    words dropped.

    Raises InputError for an unknown mode, protocol or measure, a depth above which a measure
    looks, or representations of another collection; MissingExtraError without the extra
    ``evaluate``.
    """
    if protocol not in get_args(Protocol):
        raise InputError(f"protocol expects 'union' or 'paper', got {protocol!r}.")
    check_k(recall, name="recall")
    measures = _measures(collection) if measures is None else measures
    depth = _depth(depth, measures)
    parts, notes = _parts(modes, encoder)
    weights = weights or encoder.default_weights
    if modes is None:
        # a hybrid of modes that all weigh 0 is nothing to measure, unless it was asked for
        idle = [name for name, each in parts.items() if len(each) > 1 and not _some(weights, each)]
        parts = {name: each for name, each in parts.items() if name not in idle}
        notes += tuple(f"left out: {name} (its weights are 0)" for name in idle)
    if protocol == "paper" and any("colbert" in names for names in parts.values()):
        notes += (f"with ColBERT, the dense top {_PAPER_RERANKED} reordered",)
    needed = tuple(dict.fromkeys(mode for names in parts.values() for mode in names))
    queries, documents = representations or represent(
        encoder, collection, outputs=needed, show_progress=show_progress
    )
    bm25 = bm25 or word_bm25()
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
        versions={name: version(name) for name in _PACKAGES},
        settings=_settings(encoder, bm25, depth=depth, measures=measures),
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
    documents: Representations | None = None,
    show_progress: bool = False,
) -> tuple[Representations, Representations]:
    """Return the representations of a collection's queries and documents.

    documents: those of the collection's documents, where another split has brought them already.
    ColBERT vectors are kept as float16, as an index keeps them.
    """
    wanted: tuple[Output, ...] = tuple(
        mode for mode in encoder.outputs if outputs is None or mode in outputs
    )
    if not wanted:
        return Representations(), Representations()
    queries = encoder.encode_queries(list(collection.queries.values()), outputs=wanted)
    if documents is not None:
        return queries, documents
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
        stands_in = name == "all" and "sparse" not in has
        if stands_in:
            names = ("dense", "bm25", "colbert")
        if has.issuperset(names):
            found[name] = names
            notes += [_SPARSE_NOTE] if stands_in else []
        elif modes is not None:
            raise InputError(f"mode {name!r} expects {names}, got a model with {encoder.outputs}.")
        else:
            notes.append(f"left out: {name}")
    return found, tuple(notes)


def _measures(collection: Collection) -> tuple[str, ...]:
    """Return the usual measures and that of the collection's published figures."""
    theirs = published(collection.name)
    return tuple(dict.fromkeys([*MEASURES, *([theirs.measure] if theirs else [])]))


def _depth(depth: int | None, measures: Sequence[str]) -> int:
    """Return how many documents a query to keep; InputError where a measure looks further."""
    needed = reach(measures)
    if depth is None:
        return max(_KEPT, needed)
    check_k(depth, name="depth")
    if depth < needed:
        raise InputError(
            f"depth expects at least {needed}, as far as {list(measures)} look, got {depth}."
        )
    return depth


def _settings(
    encoder: M3Encoder, bm25: BM25, *, depth: int, measures: Sequence[str]
) -> dict[str, Any]:
    """Return what else shaped the figures, as JSON."""
    words = {name: getattr(bm25, name) for name in ("variant", "idf", "k1", "b")}
    words["tokenizer"] = getattr(bm25.tokenizer, "state", dict)()
    return {
        "encoder": asdict(encoder.settings) | {"dtype": str(encoder.dtype)},
        "bm25": words,
        "depth": depth,
        "measures": list(measures),
    }


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
    if len(names) == 1 and (protocol == "union" or names[0] != "colbert"):
        return _best(block.scores[names[0]], block.matched(names[0]), depth)
    shares: dict[str, Floats] = {mode: block.shares(mode) for mode in names}
    if protocol == "paper" and "colbert" in names:
        found = block.recalled("dense", _PAPER_RERANKED)
    else:
        reached = _PAPER_DEPTH if protocol == "paper" else recall
        legs = [mode for mode in names if mode != "colbert"]
        recalled = {leg: block.recalled(leg, reached) for leg in legs}
        found = np.logical_or.reduce(list(recalled.values()))
        if protocol == "paper":
            shares = {leg: np.where(recalled[leg], shares[leg], 0.0) for leg in legs}
    if len(names) == 1:
        return _best(shares[names[0]], found, depth)
    return _best(scoring.hybrid(shares, _positive(weights, names)), found, depth)


def _best(
    scores: Floats, found: NDArray[np.bool_], depth: int
) -> list[tuple[NDArray[np.int64], Floats]]:
    """Return for each query the best rows among those found, and their scores."""
    ranked = []
    for values, mask in zip(scores, found, strict=True):
        rows = top_k(values, depth, candidates=mask)
        ranked.append((rows, values[rows]))
    return ranked


def _positive(weights: HybridWeights, names: tuple[Mode, ...]) -> HybridWeights:
    """Return the weights for some modes; InputError where all of them weigh 0."""
    if not _some(weights, names):
        raise InputError(f"{names} expect a weight above 0, got {weights}.")
    return weights


def _some(weights: HybridWeights, names: tuple[Mode, ...]) -> bool:
    """Return whether any of some modes has a weight above 0."""
    return any(getattr(weights, "sparse" if mode == "bm25" else mode) > 0 for mode in names)
