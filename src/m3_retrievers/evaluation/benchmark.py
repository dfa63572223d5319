"""A model on a test collection: every mode's ranking, by a protocol, and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.choose import settings_of
from m3_retrievers.evaluation.datasets import Collection
from m3_retrievers.evaluation.metrics import MEASURES, measure
from m3_retrievers.evaluation.modes import chosen
from m3_retrievers.evaluation.protocol import BestRows, EvaluationProtocol, ProtocolName
from m3_retrievers.evaluation.published import published
from m3_retrievers.evaluation.report import Evaluation
from m3_retrievers.evaluation.scores import BLOCK, Block, Scorer, word_bm25
from m3_retrievers.evaluation.trec import RankedRun
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.types.plan import HybridWeights, Mode
from m3_retrievers.types.representations import Output, Representations

# documents encoded in one call: enough to share forward passes by length
_ENCODED_AT_ONCE = 1024
_PACKAGES = ("m3-retrievers", "torch", "transformers", "ir-measures")


def evaluate(
    encoder: Encoder,
    collection: Collection,
    *,
    modes: Sequence[str] | None = None,
    protocol: EvaluationProtocol | ProtocolName = "union",
    weights: HybridWeights | None = None,
    measures: Sequence[str] | None = None,
    representations: tuple[Representations, Representations] | None = None,
    bm25: BM25 | None = None,
    show_progress: bool = False,
) -> Evaluation:
    """Return what each mode retrieves and how good it is.

    modes: such as ``["dense", "all"]``; None is all that the model can do. protocol: a name, or
    a record with the depths. weights: None is the model's own. measures: names as ir-measures
    writes them; None is nDCG@10, R@100, RR@10 and that of the published figures.
    representations: of queries and documents, from ``represent``, to save encoding again. bm25:
    None counts words, English stop words dropped.

    Raises InputError for an unknown mode, protocol or measure, a depth above which a measure
    looks, or representations of another collection; MissingExtraError without the extra
    ``evaluate``.
    """
    protocol = EvaluationProtocol.of(protocol)
    measures = _usual_measures(collection) if measures is None else measures
    depth = protocol.kept(measures)
    weights = weights or encoder.default_weights
    components, notes = chosen(modes, encoder, weights)
    needed = tuple(dict.fromkeys(mode for several in components.values() for mode in several))
    vectors = representations or represent(
        encoder, collection, outputs=needed, show_progress=show_progress
    )
    bm25 = bm25 or word_bm25()
    rank = partial(protocol.ranked, weights=weights, depth=depth)
    scorer = Scorer.over(collection, vectors, modes=needed, bm25=bm25)
    runs = _runs(scorer, collection, components, rank, show_progress=show_progress)
    return Evaluation(
        **_about(encoder, collection, bm25, depth=depth, measures=measures),
        protocol=protocol.name,
        weights=weights,
        recall=protocol.leg_depth,
        notes=notes + protocol.notes(needed),
        values={name: measure(run, collection.qrels, measures) for name, run in runs.items()},
        runs=runs,
    )


def _runs(
    scorer: Scorer,
    collection: Collection,
    components: Mapping[str, tuple[Mode, ...]],
    rank: Callable[[Block, tuple[Mode, ...]], BestRows],
    *,
    show_progress: bool,
) -> dict[str, RankedRun]:
    """Return what each mode retrieves for each query."""
    ids, query_ids = np.array(list(collection.documents), object), list(collection.queries)
    runs: dict[str, RankedRun] = {name: {} for name in components}
    blocks = -(-len(query_ids) // BLOCK)
    for block in tqdm(scorer, total=blocks, disable=not show_progress, desc="score"):
        for name, several in components.items():
            ranked = zip(query_ids[block.first :], rank(block, several), strict=False)
            for query, (rows, scores) in ranked:
                runs[name][query] = (ids[rows].tolist(), scores.tolist())
    return runs


def represent(
    encoder: Encoder,
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
    for at in range(0, len(texts), _ENCODED_AT_ONCE):
        chunk = encoder.encode_documents(texts[at : at + _ENCODED_AT_ONCE], outputs=wanted)
        if chunk.colbert is not None:
            chunk = replace(chunk, colbert=chunk.colbert.astype("float16"))
        chunks.append(chunk)
        bar.update(len(chunk))
    bar.close()
    return queries, Representations.concatenate(chunks)


def _usual_measures(collection: Collection) -> tuple[str, ...]:
    """Return the usual measures and that of the collection's published figures."""
    beside = published(collection.name)
    return tuple(dict.fromkeys([*MEASURES, *([beside.measure] if beside else [])]))


def _about(
    encoder: Encoder, collection: Collection, bm25: BM25, *, depth: int, measures: Sequence[str]
) -> Mapping[str, Any]:
    """Return what shaped the figures, as fields of an ``Evaluation``; settings are JSON."""
    words = {name: getattr(bm25, name) for name in ("variant", "idf", "k1", "b")}
    words["tokenizer"] = getattr(bm25.tokenizer, "state", dict)()
    return {
        "collection": collection.name,
        "split": collection.split,
        "documents": len(collection.documents),
        "query_ids": tuple(collection.queries),
        "model": encoder.name,
        "fingerprint": encoder.fingerprint,
        "versions": {name: version(name) for name in _PACKAGES},
        "settings": {
            "encoder": settings_of(encoder),
            "bm25": words,
            "depth": depth,
            "measures": list(measures),
        },
    }
