"""LlamaIndex's nodes from and to what the core speaks.

What the model reads of a node is its text in ``MetadataMode.EMBED``, as everywhere in
LlamaIndex: metadata is part of it unless the node excludes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, TextNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from m3_retrievers.errors import InputError
from m3_retrievers.index.base import Index
from m3_retrievers.types.hits import Hit, Ranking, Record

# Where LlamaIndex's own stores keep the node itself, and where ours keeps whose part it is:
# apart from the node's metadata, which may use any name.
_CONTENT = "_node_content"
REF_DOC_ID = "_ref_doc_id"


class ScoredNode(NodeWithScore):
    """A node with the score it is ordered by, and in ``scores`` how that came about.

    ``metadata["scores"]`` shows the same record, as in LangChain, but it is no part of the
    node: LlamaIndex tells nodes apart by a hash of their metadata, and shows it to the model.
    """

    scores: dict[str, float] = Field(default_factory=dict)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes down for this class."""
        return "M3ScoredNode"

    @property
    def metadata(self) -> dict[str, Any]:
        """The node's metadata, with the scores beside it."""
        return {**self.node.metadata, "scores": dict(self.scores)}


def embedded(node: BaseNode) -> str:
    """Return the text of a node that the model reads."""
    return node.get_content(metadata_mode=MetadataMode.EMBED)


def records_of(nodes: Iterable[BaseNode]) -> list[Record]:
    """Return a record a node: its metadata for filters, and the node itself as JSON.

    Raises InputError for what is no list of nodes.
    """
    if isinstance(nodes, BaseNode | str):
        raise InputError(
            f"nodes expects a list of nodes, got one {type(nodes).__name__}: {nodes!r:.60}. "
            "Wrap it."
        )
    return [_record(_node(node, position)) for position, node in enumerate(nodes)]


def to_node(record: Record | Hit) -> BaseNode:
    """Return the node that was stored; of another framework's document, a TextNode."""
    if _CONTENT in record.metadata:
        return metadata_dict_to_node(dict(record.metadata))
    return TextNode(id_=record.id, text=record.text, metadata=dict(record.metadata))


def from_hit(hit: Hit) -> ScoredNode:
    """Return a hit's node with its scores."""
    return ScoredNode(node=to_node(hit), score=hit.score, scores=dict(hit.scores))


def from_ranking(index: Index, ranking: Ranking, mode: str) -> list[ScoredNode]:
    """Return the nodes of one leg's ranking, in its order, each with that leg's score."""
    score_of = dict(zip(ranking.ids, ranking.scores.tolist(), strict=True))
    return [
        ScoredNode(
            node=to_node(record), score=score_of[record.id], scores={mode: score_of[record.id]}
        )
        for record in index.get(ranking.ids)
    ]


def scored(
    found: NodeWithScore, score: float, scores: Mapping[str, float], **metadata: Any
) -> ScoredNode:
    """Return a copy with a new score, ``scores`` merged into those it had, and more metadata.

    What is added to the metadata is for programs: model and embedding do not get to see it.
    """
    node = found.node
    added: dict[str, Any] = {"metadata": {**deepcopy(node.metadata), **metadata}}
    for kind in ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys"):
        added[kind] = list(dict.fromkeys([*getattr(node, kind), *metadata]))
    return ScoredNode(
        node=node.model_copy(update=added), score=score, scores={**scores_of(found), **scores}
    )


def scores_of(found: NodeWithScore) -> dict[str, float]:
    """Return how a node's score came about, where that is known."""
    return dict(found.scores) if isinstance(found, ScoredNode) else {}


def _node(node: BaseNode, position: int) -> BaseNode:
    if not isinstance(node, BaseNode):
        raise InputError(
            f"nodes expects LlamaIndex nodes or Documents, got {type(node).__name__} "
            f"({node!r:.60}) at position {position}. Wrap a text as Document(text=text); of a "
            "NodeWithScore take its .node."
        )
    return node


def _record(node: BaseNode) -> Record:
    kept = node_to_metadata_dict(node)
    # LlamaIndex puts ids of its own among the metadata; the node's own entries come first
    kept |= node.model_dump(mode="json", include={"metadata"})["metadata"]
    return Record(node.node_id, embedded(node), {**kept, REF_DOC_ID: node.ref_doc_id})
