"""M3VectorStore and M3DocumentIndex beyond the standard suites."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, aindex, index

from m3_retrievers import HybridRetriever, HybridWeights, M3Encoder, ReciprocalRankFusion
from m3_retrievers.errors import DuplicateIdError, FilterError, InputError
from m3_retrievers.langchain import M3DocumentIndex, M3Embeddings, M3VectorStore
from m3_retrievers.types.hits import Record

QUERY = "Where is the river?"


@pytest.fixture
def store(encoder: M3Encoder, documents: tuple[Document, ...]) -> M3VectorStore:
    store = M3VectorStore(HybridRetriever(encoder))
    store.add_documents(documents)
    return store


def ids(found: list[Document]) -> list[str | None]:
    return [document.id for document in found]


def test_search_is_the_core_retrievers(store: M3VectorStore) -> None:
    hits = store.hybrid.search(QUERY, k=4)
    assert ids(store.similarity_search(QUERY)) == [hit.id for hit in hits]
    scored = store.similarity_search_with_score(QUERY)
    assert [score for _, score in scored] == [hit.score for hit in hits]
    assert [d.metadata["scores"]["hybrid"] for d, _ in scored] == [hit.score for hit in hits]


def test_k_and_filter_through_as_retriever(store: M3VectorStore) -> None:
    retriever = store.as_retriever(search_kwargs={"k": 5, "filter": {"even": True}})
    assert sorted(d.metadata["n"] for d in retriever.invoke(QUERY)) == [0, 2, 4]
    assert len(retriever.invoke(QUERY, k=1)) == 1
    assert ids(retriever.invoke(QUERY, filter={"n": 3})) == ["3"]


def test_search_by_vector_is_the_dense_ranking(store: M3VectorStore, encoder: M3Encoder) -> None:
    vector = M3Embeddings(encoder).embed_query(QUERY)
    texts = [d.page_content for d in store.get_by_ids(list("012345"))]
    scores = np.array(M3Embeddings(encoder).embed_documents(texts)) @ vector
    expected = [str(n) for n in np.argsort(-scores)]
    assert ids(store.similarity_search_by_vector(vector, k=6)) == expected
    odd = store.similarity_search_by_vector(vector, k=6, filter={"even": False})
    assert ids(odd) == [id for id in expected if int(id) % 2]


def test_relevance_is_the_weighted_mean_between_0_and_1(store: M3VectorStore) -> None:
    scored = store.similarity_search_with_score(QUERY, k=6)
    relevant = store.similarity_search_with_relevance_scores(QUERY, k=6)
    expected = [min(1.0, max(0.0, score / 2.3)) for _, score in scored]
    assert [score for _, score in relevant] == pytest.approx(expected)


def test_threshold_cuts_by_relevance(store: M3VectorStore) -> None:
    relevance = [s for _, s in store.similarity_search_with_relevance_scores(QUERY, k=6)]
    threshold = (relevance[1] + relevance[2]) / 2
    retriever = store.as_retriever(
        search_type="similarity_score_threshold",
        search_kwargs={"k": 6, "score_threshold": threshold},
    )
    assert len(retriever.invoke(QUERY)) == 2


def test_fused_scores_are_no_relevance(encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
    store = M3VectorStore(HybridRetriever(encoder, fusion=ReciprocalRankFusion()))
    store.add_documents(documents)
    with pytest.raises(InputError, match="fusion"):
        store.similarity_search_with_relevance_scores(QUERY)


def test_marginal_relevance_prefers_what_differs(encoder: M3Encoder) -> None:
    texts = ["the river rose", "the river rose", "a clock"]
    store = M3VectorStore.from_texts(texts, encoder, ids=["a", "copy", "clock"])
    plain = store.similarity_search("the river rose", k=2)
    diverse = store.max_marginal_relevance_search("the river rose", k=2, lambda_mult=0.3)
    assert ids(plain) == ["a", "copy"]
    assert ids(diverse) == ["a", "clock"]
    vector = M3Embeddings(encoder).embed_query("the river rose")
    by_vector = store.max_marginal_relevance_search_by_vector(vector, k=2, lambda_mult=0.3)
    assert ids(by_vector) == ["a", "clock"]
    retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 2, "lambda_mult": 0.3})
    assert ids(retriever.invoke("the river rose")) == ["a", "clock"]


def test_marginal_relevance_compares_the_stored_vectors(encoder: M3Encoder) -> None:
    store = M3VectorStore(HybridRetriever(encoder, legs=("dense",)))
    records = [Record("a", "the river rose"), Record("b", "the river rose"), Record("c", "a clock")]
    # stored so that "b" differs and "c" does not: encoding the texts again would say otherwise
    stored = encoder.encode_documents(["the river rose", "a clock", "the river rose"])
    store.hybrid.index.add(records, stored)
    found = store.max_marginal_relevance_search("the river rose", k=2, lambda_mult=0.3)
    assert ids(found) == ["a", "b"]


def test_marginal_relevance_works_where_no_dense_vectors_are_kept(encoder: M3Encoder) -> None:
    weights = HybridWeights(dense=0, sparse=1, colbert=0)
    store = M3VectorStore(HybridRetriever(encoder, legs=("sparse",), weights=weights))
    assert store.hybrid.index.modes == {"sparse"}
    store.add_texts(
        ["the river rose", "the river rose", "a clock rose"], ids=["a", "copy", "clock"]
    )
    found = store.max_marginal_relevance_search("the river rose", k=2, lambda_mult=0.3)
    assert ids(found) == ["a", "clock"]
    with pytest.raises(InputError, match="k expects an integer of at least 1, got 0"):
        store.max_marginal_relevance_search("the river rose", k=0)


def test_one_string_is_not_taken_for_a_list_of_ids(store: M3VectorStore) -> None:
    documents = M3DocumentIndex(hybrid=store.hybrid)
    for call in (store.delete, store.get_by_ids, documents.delete, documents.get):
        with pytest.raises(InputError, match="a list of ids, got one string '1'"):
            call("1")
    assert len(store.hybrid) == 6


def test_from_texts_takes_embeddings_or_the_encoder(encoder: M3Encoder) -> None:
    given: dict[str, Any] = {"metadatas": [{"n": 1}, {"n": 2}], "ids": ["a", "b"]}
    for embedding in (encoder, M3Embeddings(encoder)):
        store = M3VectorStore.from_texts(["the river", "a clock"], embedding, **given)
        assert store.get_by_ids(["b"]) == [
            Document(id="b", page_content="a clock", metadata={"n": 2})
        ]
    with pytest.raises(InputError, match="M3Embeddings"):
        M3VectorStore.from_texts(["x"], DeterministicFakeEmbedding(size=6))


def test_from_documents_keeps_ids(encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
    store = M3VectorStore.from_documents(list(documents), M3Embeddings(encoder))
    assert store.get_by_ids(["3"]) == [documents[3]]


def test_add_texts_reads_a_generator(encoder: M3Encoder) -> None:
    store = M3VectorStore(HybridRetriever(encoder))
    made = store.add_texts(
        (text for text in ["a river", "a clock"]), metadatas=[{"n": 1}, {"n": 2}]
    )
    assert [d.metadata["n"] for d in store.get_by_ids(made)] == [1, 2]


def test_what_was_stored_cannot_be_changed_from_outside(store: M3VectorStore) -> None:
    given = Document(id="x", page_content="x", metadata={"tags": ["a"]})
    before = deepcopy(given)
    store.add_documents([given])
    store.get_by_ids(["x"])[0].metadata["tags"].append("b")
    given.metadata["tags"].append("c")
    assert store.get_by_ids(["x"]) == [before]


def test_saved_and_loaded_it_answers_the_same(
    store: M3VectorStore, encoder: M3Encoder, tmp_path: Path
) -> None:
    store.save(tmp_path / "store")
    loaded = M3VectorStore.load(tmp_path / "store", encoder)
    assert loaded.similarity_search_with_score(QUERY) == store.similarity_search_with_score(QUERY)


def test_bad_input_is_refused(store: M3VectorStore) -> None:
    with pytest.raises(InputError, match="at least 1"):
        store.similarity_search(QUERY, k=0)
    with pytest.raises(FilterError):
        store.similarity_search(QUERY, filter={"n": {"$near": 1}})
    with pytest.raises(InputError, match="filters"):
        store.similarity_search(QUERY, filters={})
    with pytest.raises(InputError, match="a list of ids or a filter=, got neither"):
        store.delete()
    with pytest.raises(InputError, match="list of strings"):
        store.add_texts("one string")
    with pytest.raises(InputError, match="1 for 2"):
        store.add_texts(["x", "y"], ids=["a"])
    with pytest.raises(DuplicateIdError):
        store.add_texts(["x", "y"], ids=["a", "a"])
    assert len(store.hybrid) == 6


def _held(target: Any) -> set[str]:
    return {target.hybrid.get([id])[0].text for id in target.hybrid.index.ids}


@pytest.fixture(params=["vector store", "document index"])
def target(request: pytest.FixtureRequest, encoder: M3Encoder) -> Any:
    hybrid = HybridRetriever(encoder)
    return (
        M3VectorStore(hybrid) if request.param == "vector store" else M3DocumentIndex(hybrid=hybrid)
    )


def _page(text: str, source: str) -> Document:
    return Document(page_content=text, metadata={"source": source})


def test_indexing_with_incremental_cleanup(target: Any) -> None:
    records = InMemoryRecordManager("test")
    records.create_schema()
    options: dict[str, Any] = {
        "cleanup": "incremental",
        "source_id_key": "source",
        "key_encoder": "blake2b",
    }
    first = index([_page("a1", "a"), _page("b1", "b")], records, target, **options)
    assert first == {"num_added": 2, "num_updated": 0, "num_skipped": 0, "num_deleted": 0}
    again = index([_page("a2", "a")], records, target, **options)
    assert again == {"num_added": 1, "num_updated": 0, "num_skipped": 0, "num_deleted": 1}
    assert _held(target) == {"a2", "b1"}


def test_indexing_with_full_cleanup(target: Any) -> None:
    records = InMemoryRecordManager("test")
    records.create_schema()
    options: dict[str, Any] = {"cleanup": "full", "key_encoder": "blake2b"}
    index([_page("a1", "a"), _page("b1", "b")], records, target, **options)
    again = index([_page("b1", "b"), _page("c1", "c")], records, target, **options)
    assert again == {"num_added": 1, "num_updated": 0, "num_skipped": 1, "num_deleted": 1}
    assert _held(target) == {"b1", "c1"}


async def test_indexing_async(target: Any) -> None:
    records = InMemoryRecordManager("test")
    await records.acreate_schema()
    options: dict[str, Any] = {"cleanup": "full", "key_encoder": "blake2b"}
    await aindex([_page("a1", "a"), _page("b1", "b")], records, target, **options)
    await aindex([_page("b1", "b")], records, target, **options)
    assert _held(target) == {"b1"}


def test_deleting_by_filter_and_by_id(encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
    for target in (
        M3VectorStore.from_documents(documents, encoder),
        M3DocumentIndex(M3VectorStore.from_documents(documents, encoder).hybrid),
    ):
        assert (len(target), target.ids) == (6, list("012345"))
        target.delete(filter={"n": {"$gte": 4}})
        assert target.ids == list("0123")
        target.delete(["0", "1", "9"], filter={"even": False})
        assert target.ids == list("023")
        for options in ({}, {"ids": None}):
            with pytest.raises(InputError, match=r"ids or a filter=, got neither"):
                target.delete(**options)
        with pytest.raises(InputError, match=r"'filters'.*Did you mean filter="):
            target.delete(filters={"n": 1})


def test_an_empty_store_is_true(encoder: M3Encoder) -> None:
    for empty in (M3VectorStore(encoder), M3DocumentIndex(encoder)):
        assert len(empty) == 0
        assert bool(empty)


def test_a_store_is_made_of_whatever_stands_for_a_model(encoder: M3Encoder) -> None:
    for given in (encoder, encoder.name, M3Embeddings(encoder)):
        assert len(M3VectorStore(given)) == 0
        assert M3VectorStore.from_texts(["a", "b"], given, ids=["1", "2"]).ids == ["1", "2"]
        assert M3VectorStore.from_texts(["a"], encoder=encoder, ids=["1"]).ids == ["1"]
    with pytest.raises(InputError, match=r"M3VectorStore expects an encoder.*got None"):
        M3VectorStore.from_texts(["a"])
    made = M3VectorStore.from_texts(["a"], encoder, legs=["bm25"], tokenizer="english")
    assert made.hybrid.legs == ("bm25",)
