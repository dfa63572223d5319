"""M3VectorStore: nodes in and out, the four modes of a query, filters, disk."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.schema import ImageNode, IndexNode, NodeRelationship, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from m3_retrievers import (
    HybridRetriever,
    HybridWeights,
    M3Encoder,
    Recall,
    ReciprocalRankFusion,
)
from m3_retrievers.errors import (
    DuplicateIdError,
    FilterError,
    IndexModelError,
    InputError,
    SavedIndexError,
)
from m3_retrievers.llama_index import BM25Retriever, M3EnsembleRetriever, M3VectorStore
from m3_retrievers.llama_index.nodes import to_node, to_records

QUERY = "Where is the river?"
LEGS = ("dense", "sparse", "bm25")
ODD = MetadataFilters(filters=[MetadataFilter(key="even", value="no")])


@pytest.fixture
def store(encoder: M3Encoder, nodes: list[TextNode]) -> M3VectorStore:
    made = M3VectorStore(HybridRetriever(encoder, legs=LEGS))
    assert made.add(nodes) == [node.node_id for node in nodes]
    return made


def ask(store: M3VectorStore, mode: str, **options: Any) -> list[tuple[str, float]]:
    options = {"query_str": QUERY, "similarity_top_k": 6, **options}
    result = store.query(VectorStoreQuery(mode=VectorStoreQueryMode(mode), **options))
    assert result.nodes is not None
    assert result.ids is not None
    assert result.similarities is not None
    assert [node.node_id for node in result.nodes] == result.ids
    return list(zip(result.ids, result.similarities, strict=True))


def same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> bool:
    """Equal ids in order, and scores: a part of a matrix product may round otherwise than all."""
    scores = [score for _, score in expected]
    return [id for id, _ in found] == [id for id, _ in expected] and (
        [score for _, score in found] == pytest.approx(scores, abs=1e-5)
    )


# Modes


def test_default_mode_is_the_dense_leg(store: M3VectorStore, nodes: list[TextNode]) -> None:
    encoder = store.hybrid.encoder
    pairs = encoder.score_pairs([(QUERY, node.text) for node in nodes])
    expected = {str(n): float(s) for n, s in enumerate(pairs.dense)}
    found = ask(store, "default")
    assert dict(found) == pytest.approx(expected, abs=1e-5)
    assert [id for id, _ in found] == sorted(expected, key=lambda id: -expected[id])
    vector = encoder.encode_query(QUERY, outputs=("dense",)).require("dense")[0].tolist()
    assert ask(store, "default", query_str=None, query_embedding=vector) == found


def test_sparse_mode_is_the_sparse_leg(store: M3VectorStore, nodes: list[TextNode]) -> None:
    pairs = store.hybrid.encoder.score_pairs([(QUERY, node.text) for node in nodes])
    assert pairs.sparse is not None
    expected = {str(n): float(s) for n, s in enumerate(pairs.sparse) if s > 0}
    assert dict(ask(store, "sparse")) == pytest.approx(expected, abs=1e-5)
    assert len(ask(store, "sparse", sparse_top_k=1)) == 1


def test_text_search_is_bm25(store: M3VectorStore, nodes: list[TextNode]) -> None:
    expected = BM25Retriever.from_nodes(nodes, k=6).retrieve(QUERY)
    assert ask(store, "text_search") == [(one.node_id, one.score) for one in expected]


def test_hybrid_mode_is_the_whole_retrieval(store: M3VectorStore) -> None:
    expected = M3EnsembleRetriever(store.hybrid, k=6).retrieve(QUERY)
    assert ask(store, "hybrid") == [(one.node_id, one.score) for one in expected]
    assert ask(store, "hybrid", hybrid_top_k=2) == ask(store, "hybrid")[:2]


def test_alpha_runs_from_terms_to_vectors(store: M3VectorStore) -> None:
    sparse = dict(ask(store, "sparse"))
    terms = dict(ask(store, "hybrid", alpha=0.0))
    assert {id: terms[id] for id in sparse} == pytest.approx(sparse)
    vectors = dict(ask(store, "hybrid", alpha=1.0))
    scores = {
        one.node_id: one.metadata["scores"]
        for one in M3EnsembleRetriever(store.hybrid, k=6).retrieve(QUERY)
    }
    weights = store.hybrid.weights
    share = weights.dense / (weights.dense + weights.colbert)
    for id, score in vectors.items():
        vector = share * scores[id]["dense"] + (1 - share) * scores[id]["colbert"]
        assert score == pytest.approx(vector)
        half = dict(ask(store, "hybrid", alpha=0.5))[id]
        assert half == pytest.approx(0.5 * vector + 0.5 * scores[id]["sparse"])


def test_depths_of_one_query(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    store = M3VectorStore(HybridRetriever(encoder, recall=Recall(dense=6, lexical=6)))
    store.add(nodes)
    best = ask(store, "default")[0][0]
    narrow = ask(store, "hybrid", similarity_top_k=1, hybrid_top_k=6, sparse_top_k=1)
    terms = ask(store, "sparse")[0][0]
    assert {id for id, _ in narrow} == {best, terms}


def test_a_given_vector_is_the_dense_part_of_a_hybrid_query(store: M3VectorStore) -> None:
    encoder = store.hybrid.encoder
    other = encoder.encode_query("clock", outputs=("dense",)).require("dense")[0].tolist()
    dense = dict(ask(store, "default", query_embedding=other))
    plain, given = dict(ask(store, "hybrid")), dict(ask(store, "hybrid", query_embedding=other))
    shift = {id: given[id] - plain[id] for id in plain}
    own = dict(ask(store, "default"))
    weight = store.hybrid.weights.dense
    expected = {id: weight * (dense[id] - own[id]) for id in plain}
    assert shift == pytest.approx(expected, abs=1e-6)


def test_what_a_mode_lacks_is_said(encoder: M3Encoder, store: M3VectorStore) -> None:
    with pytest.raises(InputError, match=r"HybridRetriever\(encoder, legs=.*'bm25'"):
        ask(M3VectorStore(HybridRetriever(encoder)), "text_search")
    with pytest.raises(InputError, match=r"mode expects one of .*, got 'svm'"):
        ask(store, "svm")
    with pytest.raises(InputError, match="Set query_str"):
        ask(store, "hybrid", query_str=None)
    with pytest.raises(InputError, match="alpha expects"):
        ask(store, "hybrid", alpha=1.5)
    with pytest.raises(InputError, match="similarity_top_k expects"):
        ask(store, "default", similarity_top_k=0)
    with pytest.raises(InputError, match="width"):
        ask(store, "default", query_embedding=[1.0, 0.0])
    with pytest.raises(InputError, match="nonsense"):
        store.query(VectorStoreQuery(query_str=QUERY), nonsense=1)
    fused = M3VectorStore(HybridRetriever(encoder, fusion=ReciprocalRankFusion()))
    with pytest.raises(InputError, match="alpha expects a hybrid score"):
        ask(fused, "hybrid", alpha=0.5)


# Filters


@pytest.mark.parametrize("mode", ["default", "sparse", "text_search", "hybrid"])
def test_filters_hold_in_every_mode(store: M3VectorStore, mode: str) -> None:
    everything = ask(store, mode)
    odd = [(id, score) for id, score in everything if int(id) % 2]
    assert [id for id, _ in ask(store, mode, filters=ODD)] == [id for id, _ in odd]
    first = [(id, score) for id, score in everything if int(id) < 3]
    assert same(ask(store, mode, doc_ids=["doc-0"]), first)
    some = [(id, score) for id, score in everything if id in "024"]
    assert same(ask(store, mode, node_ids=["4", "2", "0", "99"]), some)
    assert same(ask(store, mode, node_ids=[]), everything)
    one = [(id, score) for id, score in everything if id == "1"]
    assert same(ask(store, mode, node_ids=["1", "2"], filters=ODD, doc_ids=["doc-0"]), one)


def test_filters_apply_before_the_top_k(store: M3VectorStore) -> None:
    for mode in ("default", "hybrid"):
        last = ask(store, mode)[-1]
        assert same(ask(store, mode, similarity_top_k=1, node_ids=[last[0]]), [last])
        n = MetadataFilters(filters=[MetadataFilter(key="n", value=int(last[0]))])
        assert same(ask(store, mode, similarity_top_k=1, filters=n), [last])


def test_nested_filters(store: M3VectorStore) -> None:
    late = MetadataFilter(key="n", operator=FilterOperator.GTE, value=4)
    first = MetadataFilter(key="n", value=0)
    either = MetadataFilters(filters=[late, first], condition=FilterCondition.OR)
    both = MetadataFilters(filters=[either, *ODD.filters])
    assert sorted(id for id, _ in ask(store, "default", filters=either)) == ["0", "4", "5"]
    assert [id for id, _ in ask(store, "default", filters=both)] == ["5"]
    assert [node.node_id for node in store.get_nodes(filters=both)] == ["5"]


def test_a_filter_that_cannot_be_read_is_refused(store: M3VectorStore) -> None:
    wrong = MetadataFilter(key="n", operator=FilterOperator.GT, value=[1])
    with pytest.raises(FilterError, match=r"\$gt"):
        ask(store, "default", filters=MetadataFilters(filters=[wrong]))


# Nodes in and out


def test_nodes_come_back_as_they_were_stored(store: M3VectorStore, nodes: list[TextNode]) -> None:
    assert store.get_nodes() == nodes
    assert store.get_nodes(["3", "99", "1"]) == [nodes[3], nodes[1]]
    assert store.get_nodes(["3", "2"], ODD) == [nodes[3]]
    result = store.query(VectorStoreQuery(query_str=QUERY, similarity_top_k=1))
    assert result.nodes == [nodes[int(result.ids[0])]]  # type: ignore[index]


def test_every_kind_of_node_survives() -> None:
    kinds = [
        TextNode(text="a", text_template="{content}", start_char_idx=1, end_char_idx=2),
        IndexNode(text="b", index_id="i", obj=TextNode(text="behind")),
        ImageNode(text="c", image_url="http://example.org/c.png"),
        TextNode(text="d", metadata={"doc_id": "mine", "ref_doc_id": "mine too"}),
    ]
    for node in kinds:
        (record,) = to_records([node])
        json.dumps(dict(record.metadata))
        again = to_node(record)
        assert again == node
        assert type(again) is type(node)


@settings(max_examples=50)
@given(
    text=st.text(max_size=20),
    metadata=st.dictionaries(
        st.text(max_size=8),
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
        max_size=3,
    ),
)
def test_any_text_and_metadata_survive(text: str, metadata: dict[str, Any]) -> None:
    node = TextNode(text=text, metadata=metadata, metadata_template="{key}{value}")
    (record,) = to_records([node])
    assert to_node(record) == node
    assert {key: record.metadata[key] for key in metadata} == metadata


def test_a_lone_surrogate_does_not_crash(encoder: M3Encoder, tmp_path: Path) -> None:
    store = M3VectorStore(HybridRetriever(encoder))
    store.add([TextNode(id_="x", text="a \ud800 river")])
    store.persist(str(tmp_path / "store"))
    again = M3VectorStore.from_persist_path(tmp_path / "store", encoder)
    assert again.get_nodes()[0].get_content() == "a \ud800 river"


def test_the_node_given_is_neither_touched_nor_shared(
    encoder: M3Encoder, nodes: list[TextNode]
) -> None:
    before = deepcopy(nodes)
    store = M3VectorStore(HybridRetriever(encoder))
    store.add(nodes)
    nodes[0].metadata["mine"] = True
    assert store.get_nodes(["0"]) == [before[0]]


def test_embeddings_on_nodes_are_not_read(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    store, other = (M3VectorStore(HybridRetriever(encoder)) for _ in range(2))
    store.add(nodes)
    other.add([node.model_copy(update={"embedding": [0.1, 0.2]}) for node in nodes])
    assert ask(other, "hybrid") == ask(store, "hybrid")


def test_adding_a_known_id_replaces_the_node(store: M3VectorStore) -> None:
    store.add([TextNode(id_="0", text="A new text.")])
    assert len(store.get_nodes()) == 6
    assert store.get_nodes(["0"])[0].get_content() == "A new text."
    with pytest.raises(DuplicateIdError, match="'7'"):
        store.add([TextNode(id_="7", text="a"), TextNode(id_="7", text="b")])
    with pytest.raises(InputError, match="wait"):
        store.add([], wait=True)


def test_delete_by_document(store: M3VectorStore, nodes: list[TextNode]) -> None:
    assert nodes[0].relationships[NodeRelationship.SOURCE].node_id == "doc-0"  # type: ignore[union-attr]
    store.delete("doc-0")
    store.delete("doc-unknown")
    assert [node.node_id for node in store.get_nodes()] == ["3", "4", "5"]
    assert {id for id, _ in ask(store, "hybrid")} == {"3", "4", "5"}


def test_metadata_of_the_same_name_does_not_decide_whose_node_it_is(encoder: M3Encoder) -> None:
    store = M3VectorStore(HybridRetriever(encoder))
    node = TextNode(text="a", metadata={"ref_doc_id": "mine", "doc_id": "mine"})
    store.add([node])
    store.delete("mine")
    mine = MetadataFilters(filters=[MetadataFilter(key="doc_id", value="mine")])
    assert store.get_nodes(filters=mine) == [node]


def test_delete_nodes_and_clear(store: M3VectorStore) -> None:
    store.delete_nodes(["0", "99"])
    store.delete_nodes(filters=ODD)
    assert [node.node_id for node in store.get_nodes()] == ["2", "4"]
    store.delete_nodes(["2", "4"], ODD)
    store.delete_nodes([])
    assert len(store.get_nodes()) == 2
    with pytest.raises(InputError, match="use clear"):
        store.delete_nodes()
    store.clear()
    assert store.get_nodes() == []
    assert ask(store, "hybrid") == []


async def test_async_equals_sync(encoder: M3Encoder, nodes: list[TextNode]) -> None:
    store = M3VectorStore(HybridRetriever(encoder))
    assert await store.async_add(nodes) == [node.node_id for node in nodes]
    assert await store.aget_nodes(["2"], None) == store.get_nodes(["2"])
    query = VectorStoreQuery(
        query_str=QUERY, mode=VectorStoreQueryMode.HYBRID, similarity_top_k=3, filters=ODD
    )
    assert await store.aquery(query) == store.query(query)
    await store.adelete("doc-0")
    await store.adelete_nodes(["3"])
    assert [node.node_id for node in store.get_nodes()] == ["4", "5"]
    await store.aclear()
    assert store.get_nodes() == []


# On disk


def test_saved_and_loaded_it_answers_the_same(store: M3VectorStore, tmp_path: Path) -> None:
    store.persist(str(tmp_path / "store"))
    again = M3VectorStore.from_persist_path(tmp_path / "store", store.hybrid.encoder)
    for mode in ("default", "sparse", "text_search", "hybrid"):
        assert ask(again, mode, filters=ODD) == ask(store, mode, filters=ODD)
    assert again.get_nodes() == store.get_nodes()


def test_nothing_on_disk_is_pickled(store: M3VectorStore, tmp_path: Path) -> None:
    store.persist(str(tmp_path / "store"))
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".jsonl", ".lock", ".safetensors"}


def test_errors_of_the_disk(
    store: M3VectorStore, tiny_bert: Path, tmp_path: Path, encoder: M3Encoder
) -> None:
    store.persist(str(tmp_path / "store"))
    narrow = M3Encoder.from_pretrained(encoder.name, truncate_dim=4)
    with pytest.raises(IndexModelError):
        M3VectorStore.from_persist_path(tmp_path / "store", narrow)
    with pytest.raises(SavedIndexError):
        M3VectorStore.from_persist_dir(tmp_path, encoder=encoder)
    with pytest.raises(InputError, match="local folder"):
        store.persist("store", fs=fsspec.filesystem("memory"))
    store.persist(str(tmp_path / "other"), fs=fsspec.filesystem("file"))
    assert (tmp_path / "other").is_dir()


def test_weights_of_the_retriever_are_kept(encoder: M3Encoder, tmp_path: Path) -> None:
    weights = HybridWeights(dense=0.2, sparse=0.8, colbert=0.0)
    M3VectorStore(HybridRetriever(encoder, weights=weights)).persist(str(tmp_path / "s"))
    again = M3VectorStore.from_persist_path(tmp_path / "s", encoder)
    assert again.hybrid.weights == weights
