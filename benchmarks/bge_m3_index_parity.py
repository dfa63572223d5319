"""What llama-index-indices-managed-bge-m3 can do, ours can: side by side, with equal scores.

Both get the same nodes, the same checkpoint in float32 and the same weights. Ours is
``M3VectorStore`` with ``Recall.everything()`` and float32 ColBERT vectors, since theirs scores
every node; theirs divides the sum by the sum of the weights, ours does not. Each line of the
result is one thing a user wants, tried for real on both sides::

    python benchmarks/bge_m3_index_parity.py [--model FOLDER]

Without ``--model`` a tiny random checkpoint is written to a temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, standard_library_questions, standard_library_texts, write_result
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from llama_index.indices.managed.bge_m3 import BGEM3Index

from m3_retrievers import HybridRetriever, HybridWeights, LocalIndex, M3Encoder, Recall
from m3_retrievers.llama_index import M3EnsembleRetriever, M3VectorStore

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from checkpoints import write_tiny_m3

WEIGHTS = HybridWeights(dense=1.0, sparse=0.3, colbert=1.0)
EVEN = MetadataFilters(filters=[MetadataFilter(key="parity", value="even")])
K = 10


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or write_tiny_m3(Path(scratch) / "model")
        result = compare(
            folder, Path(scratch), documents=options.documents, queries=options.queries
        )
    for name, both in result["abilities"].items():
        print(f"{name:<42} ours: {both['ours']:<28} peer: {both['peer']}")
    print(f"largest difference of a score: {result['largest_score_difference']:.1e}")
    write_result(options.result, result)


def compare(folder: Path, scratch: Path, *, documents: int, queries: int) -> dict[str, Any]:
    """Return what each side can do, and how far apart their scores are."""
    nodes = make_nodes(standard_library_texts(documents))
    questions = standard_library_questions(queries)
    encoder = M3Encoder.from_pretrained(folder, device="cpu", precision="fp32", keep=None)
    store = M3VectorStore(_exact(encoder))
    store.add(nodes)
    ours = M3EnsembleRetriever(store.hybrid, k=K)
    weights = [WEIGHTS.dense, WEIGHTS.sparse, WEIGHTS.colbert]
    index = BGEM3Index(nodes, model_name=str(folder), weights_for_different_modes=weights)
    theirs = index.as_retriever(similarity_top_k=K)
    answers = [(ours.retrieve(q), theirs.retrieve(q)) for q in questions]
    store.persist(str(scratch / "ours"))
    index.persist(str(scratch / "theirs"))
    loaded = M3VectorStore.from_persist_path(scratch / "ours", encoder)
    peer_loaded = BGEM3Index.load_from_disk(
        str(scratch / "theirs"), model_name=str(folder), weights_for_different_modes=weights
    )
    question, new = questions[0], TextNode(id_="new", text="A page about rivers and bridges.")
    filtered = M3EnsembleRetriever(store.hybrid, k=K, filters=EVEN)
    peer_filtered = index.as_retriever(similarity_top_k=K, filters=EVEN)
    again = M3EnsembleRetriever(loaded.hybrid, k=K)
    return {
        "packages": {name: version(name) for name in ("llama-index-core", PEER)},
        "documents": len(nodes),
        "queries": len(questions),
        "weights": weights,
        "same_hits_in_order": sum(_ids(a) == _ids(b) for a, b in answers),
        "largest_score_difference": max(_difference(a, b) for a, b in answers),
        "abilities": {
            "same hits, in the same order": {
                "ours": f"{sum(_ids(a) == _ids(b) for a, b in answers)} of {len(questions)}",
                "peer": "the reference",
            },
            "saved and loaded, it answers the same": {
                "ours": _said(lambda: again.retrieve(question) == answers[0][0]),
                "peer": _said(
                    lambda: (
                        _ids(peer_loaded.as_retriever(similarity_top_k=K).retrieve(question))
                        == _ids(answers[0][1])
                    )
                ),
            },
            "no pickle on disk": {
                "ours": _said(lambda: not [*(scratch / "ours").rglob("*.pkl")]),
                "peer": _said(lambda: not [*(scratch / "theirs").rglob("*.pkl")]),
            },
            "filters hold": {
                "ours": _said(lambda: _parities(filtered.retrieve(question)) == {"even"}),
                "peer": _said(lambda: _parities(peer_filtered.retrieve(question)) == {"even"}),
            },
            "each mode's own score with a hit": {
                "ours": _said(lambda: len(answers[0][0][0].metadata["scores"]) == 4),
                "peer": _said(lambda: "scores" in answers[0][1][0].metadata),
            },
            "the event loop stays free": {
                "ours": _said(lambda: asyncio.run(_ticks(ours, questions))),
                "peer": _said(lambda: asyncio.run(_ticks(theirs, questions))),
            },
            "insert a node": {
                "ours": _said(lambda: store.add([new]) == ["new"]),
                "peer": _said(lambda: index.insert_nodes([new]) is None),
            },
            "delete by document": {
                "ours": _said(lambda: _deleted(store)),
                "peer": _said(lambda: index.delete_ref_doc("document 0") is None),
            },
        },
    }


PEER = "llama-index-indices-managed-bge-m3"


def make_nodes(texts: list[str]) -> list[TextNode]:
    """Return nodes whose metadata is not embedded: the peer embeds the bare text."""
    return [
        TextNode(
            id_=str(n),
            text=text,
            metadata={"parity": "odd" if n % 2 else "even"},
            excluded_embed_metadata_keys=["parity"],
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"document {n // 10}")},
        )
        for n, text in enumerate(texts)
    ]


def _exact(encoder: M3Encoder) -> HybridRetriever:
    index = LocalIndex(colbert_dtype="float32")
    return HybridRetriever(encoder, index, recall=Recall.everything(), weights=WEIGHTS)


def _ids(found: list[NodeWithScore]) -> list[str]:
    return [one.node_id for one in found]


def _difference(ours: list[NodeWithScore], theirs: list[NodeWithScore]) -> float:
    scores = {one.node_id: float(one.get_score()) for one in theirs}
    return max(
        abs(one.get_score() / WEIGHTS.total - scores.get(one.node_id, float("inf"))) for one in ours
    )


def _parities(found: list[NodeWithScore]) -> set[str]:
    return {one.node.metadata["parity"] for one in found}


async def _ticks(retriever: Any, questions: list[str]) -> bool:
    """Return whether other work gets a turn before the answers are there."""
    running = asyncio.gather(*(retriever.aretrieve(question) for question in questions))
    turns = 0
    while not running.done():
        await asyncio.sleep(0.001)
        turns += 1
    await running
    return turns > 3


def _deleted(store: M3VectorStore) -> bool:
    store.delete("document 0")
    return not store.get_nodes([str(n) for n in range(10)]) and bool(store.get_nodes(["10"]))


def _said(attempt: Callable[[], bool]) -> str:
    """Return whether it worked, or what the library said instead."""
    try:
        return "yes" if attempt() else "no"
    except NotImplementedError as error:
        return f"no: {error}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="checkpoint; a tiny random one if left out")
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--result", type=Path, default=RESULTS / "bge_m3_index_parity.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
