"""How long a question takes, beside llama-index-indices-managed-bge-m3.

Both answer from the same documents, the same checkpoint in float32 and the same hybrid
weights; they take turns question by question, each question asked once of each. Ours is
``HybridRetriever`` as it comes: 100 candidates a leg, ColBERT vectors in float16. Theirs
scores every document, as it always does.

The documents are encoded once, by us; their index gets the vectors in the very form its own
``_build_index_from_nodes`` keeps them in (encoding twice would take as long again and change
nothing: encode_throughput.py checks that both libraries compute the same vectors). To keep that
step to minutes, short passages are encoded and ``--join`` puts some of them together into each
document, as windows of a long text are; each passage occurs in as many documents.

A second pass compares answers: with ``Recall.everything()`` and float32 vectors ours has to
give their hits, in their order, with scores within 1e-5 (theirs are divided by the sum of the
weights)::

    python benchmarks/query_latency.py --model FOLDER --documents 2000 --queries 50
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    RESULTS,
    machine,
    spread,
    standard_library_questions,
    standard_library_texts,
    timed,
    write_result,
)
from full_size import write_full_size_m3

from m3_retrievers import HybridRetriever, HybridWeights, LocalIndex, M3Encoder, Recall
from m3_retrievers.errors import TruncationWarning
from m3_retrievers.types.hits import Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.representations import Representations

WEIGHTS = HybridWeights()
K = 10
WARM_UP = 3


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", TruncationWarning)  # passages are cut on purpose
    folder = write_full_size_m3(options.model)
    about = machine(threads=torch.get_num_threads())
    encoder = M3Encoder.from_pretrained(
        folder, device="cpu", precision="fp32", document_max_length=options.max_length, keep=None
    )
    passages = standard_library_texts(options.passages)
    seconds, encoded = timed(lambda: encoder.encode_documents(passages, show_progress=True))
    questions = standard_library_questions(options.queries + WARM_UP)
    result = {
        "machine": about,
        "documents": options.documents,
        "passages": len(passages),
        "tokens_a_passage": spread(encoded.colbert.lengths.tolist()),
        "seconds_to_encode_passages": seconds,
        "tokens_a_query": spread([len(ids) for ids in encoder.tokenizer(questions).input_ids]),
        "passages_a_document": {},
    }
    for count in options.join:
        one = measure(
            encoder, folder, *join(passages, encoded, options.documents, count), questions
        )
        result["passages_a_document"][str(count)] = one
        print(
            f"{one['tokens_a_document']['median']} tokens a document: median ratio "
            f"{one['median_ratio']:.1f}, smallest {one['smallest_ratio']:.1f}; ours "
            f"{one['ours_median_s'] * 1e3:.0f} ms, peer {one['peer_median_s'] * 1e3:.0f} ms; full "
            f"scan: same hits for {one['full_scan_same_hits']}, in the same order for "
            f"{one['full_scan_same_order']} of {options.queries}, scores within "
            f"{one['full_scan_largest_score_difference']:.1e}",
            flush=True,
        )
    write_result(options.result, result)


def join(
    passages: list[str], encoded: Representations, documents: int, count: int
) -> tuple[list[Record], Representations]:
    """Return documents of ``count`` different passages each, put together as windows are.

    Dense is the normalised mean, sparse the maximum of each term, ColBERT all vectors: what
    ``truncation="windows"`` gives for a text whose windows are these passages.
    """
    # each time round the passages, the step between those of a document grows by one
    at = np.arange(documents)[:, None]
    rows = (at + np.arange(count) * (1 + at // len(passages))) % len(passages)
    records = [Record(str(n), " ".join(passages[row] for row in one)) for n, one in enumerate(rows)]
    dense = encoded.dense[rows].sum(axis=1)
    sparse = encoded.sparse[rows[:, 0]]
    for column in range(1, count):
        sparse = sparse.maximum(encoded.sparse[rows[:, column]])
    vectors = encoded.colbert.take(rows.ravel())
    return records, Representations(
        dense=dense / np.linalg.norm(dense, axis=1, keepdims=True),
        sparse=sparse,
        colbert=MultiVectors(vectors.vectors, vectors.offsets[::count]),
    )


def measure(
    encoder: M3Encoder,
    folder: Path,
    records: list[Record],
    encoded: Representations,
    questions: list[str],
) -> dict[str, Any]:
    """Return times, ratios and agreement over one collection."""
    peer = _peer(folder, records, encoded)
    ours = HybridRetriever(encoder, _index(records, encoded), weights=WEIGHTS)
    times, answers = _take_turns(ours, peer, questions)
    del ours
    exact = HybridRetriever(
        encoder,
        _index(records, encoded, colbert_dtype="float32"),
        weights=WEIGHTS,
        recall=Recall.everything(),
    )
    scans, agreement = [], []
    for question, theirs in zip(questions[WARM_UP:], answers, strict=True):
        seconds, found = timed(lambda q=question: exact.search(q, k=K))
        scans.append(seconds)
        agreement.append(_compare(found, theirs))
    ratios = [one["peer_s"] / one["ours_s"] for one in times]
    assert encoded.colbert is not None
    return {
        "tokens_a_document": spread(encoded.colbert.lengths.tolist()),
        "queries": times,
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
        "smallest_ratio": min(ratios),
        "ours_median_s": statistics.median(one["ours_s"] for one in times),
        "peer_median_s": statistics.median(one["peer_s"] for one in times),
        "ours_full_scan_float32_median_s": statistics.median(scans),
        "full_scan_same_hits": sum(one["same_set"] for one in agreement),
        "full_scan_same_order": sum(one["same_order"] for one in agreement),
        "full_scan_largest_score_difference": max(one["difference"] for one in agreement),
        "full_scan_answers": agreement,
    }


def _take_turns(
    ours: HybridRetriever, peer: Any, questions: list[str]
) -> tuple[list[dict[str, float]], list[list[Any]]]:
    """Return the seconds of both for each question after the warm-up, and the peer's answers."""
    for question in questions[:WARM_UP]:
        ours.search(question, k=K)
        peer.retrieve(question)
    times, answers = [], []
    for number, question in enumerate(questions[WARM_UP:]):
        # the order alternates, so that whoever finds warm caches changes
        if number % 2 == 0:
            our_time, _ = timed(lambda q=question: ours.search(q, k=K))
            their_time, theirs = timed(lambda q=question: peer.retrieve(q))
        else:
            their_time, theirs = timed(lambda q=question: peer.retrieve(q))
            our_time, _ = timed(lambda q=question: ours.search(q, k=K))
        times.append({"ours_s": our_time, "peer_s": their_time})
        answers.append(theirs)
    return times, answers


def _index(records: list[Record], encoded: Representations, **options: Any) -> LocalIndex:
    index = LocalIndex(**options)
    index.add(records, encoded)
    return index


def _peer(folder: Path, records: list[Record], encoded: Representations) -> Any:
    """Return their retriever over our vectors, put together as its ``load_from_disk`` does it."""
    from llama_index.core.data_structs.data_structs import IndexDict
    from llama_index.core.schema import TextNode
    from llama_index.core.storage.storage_context import StorageContext
    from llama_index.indices.managed.bge_m3 import BGEM3Index

    nodes = [TextNode(text=record.text, id_=record.id) for record in records]
    struct = IndexDict()
    for place, node in enumerate(nodes):
        struct.add_node(node, text_id=str(place))
    storage = StorageContext.from_defaults()
    storage.docstore.add_documents(nodes)
    index = BGEM3Index(
        model_name=str(folder),
        index_struct=struct,
        storage_context=storage,
        weights_for_different_modes=[WEIGHTS.dense, WEIGHTS.sparse, WEIGHTS.colbert],
    )
    index._docs_pos_to_node_id = {place: node.node_id for place, node in enumerate(nodes)}
    assert encoded.colbert is not None
    index._multi_embed_store = {
        "dense_vecs": encoded.dense,
        "lexical_weights": [
            {term: np.float32(weight) for term, weight in row.items()}
            for row in encoded.to_flag_embedding()
        ],
        "colbert_vecs": list(encoded.colbert),
    }
    return index.as_retriever(similarity_top_k=K)


def _compare(ours: list[Any], theirs: list[Any]) -> dict[str, Any]:
    """Return whether the hits are the same, and how far scores of one document are apart."""
    scores = {hit.id: hit.score / WEIGHTS.total for hit in ours}
    peer = {found.node.node_id: float(found.score) for found in theirs}
    shared = scores.keys() & peer.keys()
    ranked = sorted(peer.values(), reverse=True)
    return {
        "same_order": list(scores) == list(peer),
        "same_set": scores.keys() == peer.keys(),
        "difference": max((abs(scores[id] - peer[id]) for id in shared), default=float("inf")),
        "smallest_gap_between_their_hits": min(-np.diff(ranked)).item(),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint; written if absent")
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a document")
    parser.add_argument("--passages", type=int, default=2000, help="how many are encoded")
    parser.add_argument("--join", type=int, nargs="+", default=[4], help="passages a document")
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--result", type=Path, default=RESULTS / "query_latency.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
