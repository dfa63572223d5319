"""LlamaIndex's nodes from and to what the core speaks.

What the model reads of a node is its text in ``MetadataMode.EMBED``, as everywhere in
LlamaIndex: metadata is part of it unless the node excludes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from llama_index.core.schema import BaseNode, IndexNode, MetadataMode, NodeWithScore, TextNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from pydantic_core import PydanticSerializationError

from m3_retrievers.errors import InputError
from m3_retrievers.frameworks.fused import Found
from m3_retrievers.frameworks.inputs import check_all
from m3_retrievers.frameworks.scores import (
    ScoreStyle,
    read_scores,
    score_keys,
    without_scores,
    write_scores,
)
from m3_retrievers.index.base import Index
from m3_retrievers.types.hits import Hit, Ranking, Record

# Where LlamaIndex's own stores keep the node itself, and where ours keeps whose part it is:
# apart from the node's metadata, which may use any name.
_CONTENT = "_node_content"
REF_DOC_ID = "_ref_doc_id"


def embedded(node: BaseNode) -> str:
    """Return the text of a node that the model reads."""
    return node.get_content(metadata_mode=MetadataMode.EMBED)


def check_nodes(nodes: Iterable[BaseNode]) -> list[BaseNode]:
    """Return the nodes as a list; raises InputError for what is no list of nodes."""
    return check_all(
        nodes,
        BaseNode,  # type: ignore[type-abstract]
        name="nodes",
        plural="LlamaIndex nodes",
        remedy="Wrap a text as Document(text=text); of a NodeWithScore take its .node.",
    )


def to_records(nodes: Iterable[BaseNode]) -> list[Record]:
    """Return a record a node: its metadata for filters, and the node itself as JSON.

    Raises InputError for what is no list of nodes, and for an IndexNode whose object JSON
    cannot hold, such as a retriever.
    """
    return [_record(node) for node in check_nodes(nodes)]


def without_objects(nodes: Iterable[BaseNode]) -> tuple[list[BaseNode], dict[str, Any]]:
    """Return nodes that can be stored, and by index id the objects that IndexNodes stood for.

    A retriever over the nodes takes the objects as its ``object_map``, and follows them.
    """
    kept: list[BaseNode] = []
    objects: dict[str, Any] = {}
    for node in check_nodes(nodes):
        if isinstance(node, IndexNode) and _is_live(node.obj):
            objects[node.index_id] = node.obj
            node = node.model_copy(update={"obj": None})
        kept.append(node)
    return kept, objects


def to_node(record: Record | Hit) -> BaseNode:
    """Return the node that was stored; of another framework's document, a TextNode."""
    if _CONTENT in record.metadata:
        return metadata_dict_to_node(dict(record.metadata))
    return TextNode(id_=record.id, text=record.text, metadata=dict(record.metadata))


def from_hit(hit: Hit) -> NodeWithScore:
    """Return a hit's node, its scores in ``metadata["scores"]``."""
    return scored(NodeWithScore(node=to_node(hit)), hit.score, hit.scores, "nested")


def from_ranking(index: Index, ranking: Ranking, mode: str) -> list[NodeWithScore]:
    """Return the nodes of one leg's ranking, in its order, each with that leg's score."""
    score_of = dict(zip(ranking.ids, ranking.scores.tolist(), strict=True))
    return [
        scored(
            NodeWithScore(node=to_node(record)),
            score_of[record.id],
            {mode: score_of[record.id]},
            "nested",
        )
        for record in index.get(ranking.ids)
    ]


def scored(
    found: NodeWithScore,
    score: float | None,
    scores: Mapping[str, float],
    style: ScoreStyle,
    **metadata: Any,
) -> NodeWithScore:
    """Return a copy with a new score, scores beside those it had ("off": none), more metadata.

    What is added is for programs: neither a language model nor an embedding gets to read it.
    """
    shown, merged = deepcopy(found.node.metadata), {**read_scores(found.node.metadata), **scores}
    if style != "off":
        shown = write_scores(shown, merged, style)
    hidden = [*score_keys(merged, style), *metadata]
    return NodeWithScore(node=_showing(found.node, {**shown, **metadata}, hidden), score=score)


def restyled(found: NodeWithScore, style: ScoreStyle) -> NodeWithScore:
    """Return a copy whose metadata show their scores in this style."""
    node, scores = found.node, read_scores(found.node.metadata)
    shown = write_scores(node.metadata, scores, style)
    return NodeWithScore(node=_showing(node, shown, score_keys(scores, style)), score=found.score)


def to_found(found: NodeWithScore) -> Found[NodeWithScore]:
    """Return what fusing reads of a node that some retriever returned."""
    node = found.node
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    return Found(found, node.node_id, text, node.metadata, found.score)


def _showing(node: BaseNode, metadata: Mapping[str, Any], hidden: Iterable[str]) -> BaseNode:
    """Return a copy with other metadata, of which what is hidden is kept from every model."""
    ours = set(node.metadata) - set(without_scores(node.metadata))  # hidden when they were added
    gone = ours - set(metadata)
    update: dict[str, Any] = {"metadata": dict(metadata)}
    for kind in ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys"):
        stay = [key for key in getattr(node, kind) if key not in gone]
        update[kind] = list(dict.fromkeys([*stay, *hidden]))
    return node.model_copy(update=update)


def _is_live(obj: object) -> bool:
    """Whether an IndexNode's object is one that JSON cannot hold: nodes and texts it can."""
    return obj is not None and not isinstance(obj, BaseNode | str)


def _record(node: BaseNode) -> Record:
    if isinstance(node, IndexNode) and _is_live(node.obj):
        raise InputError(
            "A store expects nodes that JSON can hold, got the IndexNode "
            f"{node.index_id!r:.60} with a {type(node.obj).__name__}. Use "
            "M3EnsembleRetriever.from_nodes, which keeps the object itself, or "
            "VectorStoreIndex(objects=[…])."
        )
    try:
        kept = node_to_metadata_dict(node)
    except PydanticSerializationError as error:
        raise InputError(
            f"A store expects nodes whose metadata JSON can hold, got {node.metadata!r:.120} "
            f"({error}). Turn such values into strings or numbers first."
        ) from None
    # LlamaIndex puts ids of its own among the metadata; the node's own entries come first
    kept |= node.model_dump(mode="json", include={"metadata"})["metadata"]
    return Record(node.node_id, embedded(node), {**kept, REF_DOC_ID: node.ref_doc_id})
