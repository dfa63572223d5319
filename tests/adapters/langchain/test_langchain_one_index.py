"""M3EnsembleRetriever over one index."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document

from m3_retrievers import HybridRetriever, HybridWeights, M3Encoder, ReciprocalRankFusion
from m3_retrievers.encoder.heads import HeadSpec
from m3_retrievers.errors import (
    DuplicateIdError,
    FilterError,
    InputError,
    LexicalFallbackWarning,
)
from m3_retrievers.langchain import M3DocumentIndex, M3EnsembleRetriever

QUERY = "Where is the river?"


@pytest.fixture
def retriever(encoder: M3Encoder, documents: tuple[Document, ...]) -> M3EnsembleRetriever:
    return M3EnsembleRetriever.from_documents(documents, encoder=encoder, k=5)


@pytest.fixture
def passes(encoder: M3Encoder) -> Any:
    """Counts the backbone's forward passes while the test runs."""
    seen: list[int] = []
    handle = encoder.checkpoint.backbone.register_forward_pre_hook(lambda *_: seen.append(1))
    yield seen
    handle.remove()


def test_documents_are_the_core_retrievers_hits(retriever: M3EnsembleRetriever) -> None:
    assert retriever.hybrid is not None
    hits = retriever.hybrid.search(QUERY, k=5)
    found = retriever.invoke(QUERY)
    assert [doc.id for doc in found] == [hit.id for hit in hits]
    assert [doc.page_content for doc in found] == [hit.text for hit in hits]
    assert [doc.metadata["scores"] for doc in found] == [dict(hit.scores) for hit in hits]


def test_scores_name_every_mode_and_add_up(retriever: M3EnsembleRetriever) -> None:
    for document in retriever.invoke(QUERY):
        scores = document.metadata["scores"]
        assert set(scores) == {"dense", "sparse", "colbert", "hybrid"}
        total = scores["dense"] + 0.3 * scores["sparse"] + scores["colbert"]
        assert scores["hybrid"] == pytest.approx(total, abs=1e-6)


def test_bm25_leg_is_named_in_the_scores(
    encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    retriever = M3EnsembleRetriever.from_documents(
        documents, encoder=encoder, legs=("dense", "bm25"), k=2
    )
    for document in retriever.invoke(QUERY):
        assert set(document.metadata["scores"]) == {"dense", "bm25", "colbert", "hybrid"}


def test_a_model_without_sparse_head_gets_a_bm25_leg(
    tiny_bert: Path, documents: tuple[Document, ...]
) -> None:
    heads = HeadSpec(sparse=False, colbert=False)
    encoder = M3Encoder.from_pretrained(tiny_bert, heads=heads)
    with pytest.warns(LexicalFallbackWarning):
        retriever = M3EnsembleRetriever.from_documents(documents, encoder=encoder)
    assert set(retriever.invoke(QUERY)[0].metadata["scores"]) == {"dense", "bm25", "hybrid"}


def test_legs_are_child_runs_and_the_query_is_encoded_once(
    retriever: M3EnsembleRetriever, runs: Any, passes: list[int]
) -> None:
    found = retriever.invoke("which chain asks this for the first time?", {"callbacks": [runs]})
    assert len(passes) == 1
    assert sorted(run["name"] for run in runs.children) == ["dense", "sparse"]
    assert all(run["name"] in run["tags"] for run in runs.children)
    assert runs.started[runs.root]["documents"] == found


AWAITED = "what is awaited for the first time?"


async def test_async_legs_are_child_runs_and_the_query_is_encoded_once(
    retriever: M3EnsembleRetriever, runs: Any, passes: list[int]
) -> None:
    found = await retriever.ainvoke(AWAITED, {"callbacks": [runs]})
    assert len(passes) == 1
    assert sorted(run["name"] for run in runs.children) == ["dense", "sparse"]
    assert runs.started[runs.root]["documents"] == found
    assert found == retriever.invoke(AWAITED)


def test_a_legs_run_reports_its_own_best_documents(
    retriever: M3EnsembleRetriever, runs: Any
) -> None:
    assert retriever.hybrid is not None
    retriever.invoke(QUERY, {"callbacks": [runs]}, k=2)
    for run in runs.children:
        recalled = retriever.hybrid.recall_leg(QUERY, run["name"])
        assert tuple(doc.id for doc in run["documents"]) == recalled.ids[:2]
        for document, score in zip(run["documents"], recalled.scores, strict=False):
            assert document.metadata["scores"] == {run["name"]: pytest.approx(float(score))}


def test_document_index_shows_its_legs_too(
    encoder: M3Encoder, documents: tuple[Document, ...], runs: Any
) -> None:
    index = M3DocumentIndex(hybrid=HybridRetriever(encoder), k=2)
    index.upsert(documents)
    found = index.invoke(QUERY, {"callbacks": [runs]})
    assert sorted(run["name"] for run in runs.children) == ["dense", "sparse"]
    assert [set(doc.metadata["scores"]) >= {"dense", "sparse"} for doc in found] == [True, True]


def test_k_and_filter_hold_for_one_call(retriever: M3EnsembleRetriever) -> None:
    assert len(retriever.invoke(QUERY)) == 5
    assert len(retriever.invoke(QUERY, k=2)) == 2
    even = retriever.invoke(QUERY, k=6, filter={"even": True})
    assert sorted(doc.metadata["n"] for doc in even) == [0, 2, 4]
    assert len(retriever.invoke(QUERY)) == 5


async def test_k_and_filter_hold_for_one_async_call(retriever: M3EnsembleRetriever) -> None:
    found = await retriever.ainvoke(QUERY, k=6, filter={"n": {"$gte": 4}})
    assert sorted(doc.metadata["n"] for doc in found) == [4, 5]


def test_batch_equals_single_calls(retriever: M3EnsembleRetriever) -> None:
    queries = [QUERY, "Who finds the page?", "the clock"]
    one_by_one = [[doc.id for doc in retriever.invoke(query)] for query in queries]
    assert [[doc.id for doc in found] for found in retriever.batch(queries)] == one_by_one


async def test_abatch_equals_single_calls(retriever: M3EnsembleRetriever) -> None:
    queries = [QUERY, "Who finds the page?", "the clock"]
    one_by_one = [[doc.id for doc in retriever.invoke(query)] for query in queries]
    assert [[doc.id for doc in found] for found in await retriever.abatch(queries)] == one_by_one


def test_neither_input_nor_index_is_touched(
    encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    given = [doc.model_copy(update={"metadata": {"tags": ["a"]}}) for doc in documents]
    before = deepcopy(given)
    retriever = M3EnsembleRetriever.from_documents(given, encoder=encoder, k=3)
    for document in retriever.invoke(QUERY):
        document.metadata["tags"].append("b")
        document.metadata["mine"] = True
    assert given == before
    assert all(
        doc.metadata["tags"] == ["a"] and "mine" not in doc.metadata
        for doc in retriever.invoke(QUERY)
    )


def test_from_texts_equals_from_documents(
    retriever: M3EnsembleRetriever, encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    same = M3EnsembleRetriever.from_texts(
        [doc.page_content for doc in documents],
        encoder=encoder,
        metadatas=[doc.metadata for doc in documents],
        ids=[str(doc.id) for doc in documents],
        k=5,
    )
    assert same.invoke(QUERY) == retriever.invoke(QUERY)


def test_from_index_reads_an_index_that_is_there(
    retriever: M3EnsembleRetriever, encoder: M3Encoder
) -> None:
    assert retriever.hybrid is not None
    over = M3EnsembleRetriever.from_index(
        retriever.hybrid.index,
        encoder=encoder,
        k=2,
        weights=HybridWeights(dense=0.0, sparse=0.0, colbert=1.0),
    )
    for document in over.invoke(QUERY):
        scores = document.metadata["scores"]
        assert scores["hybrid"] == pytest.approx(scores["colbert"])


def test_documents_without_id_get_one(encoder: M3Encoder) -> None:
    retriever = M3EnsembleRetriever.from_texts(["one river", "two rivers"], encoder=encoder)
    ids = [doc.id for doc in retriever.invoke(QUERY)]
    assert len({*ids}) == 2
    assert None not in ids


def test_no_documents_give_no_results(encoder: M3Encoder) -> None:
    assert M3EnsembleRetriever.from_documents([], encoder=encoder).invoke(QUERY) == []


def test_trace_names_model_and_store(retriever: M3EnsembleRetriever, runs: Any) -> None:
    assert retriever.hybrid is not None
    retriever.invoke(QUERY, {"callbacks": [runs]})
    metadata = runs.started[runs.root]["metadata"]
    assert metadata["ls_retriever_name"] == "m3ensemble"
    assert metadata["ls_vector_store_provider"] == "LocalIndex"
    assert metadata["ls_embedding_model"] == retriever.hybrid.encoder.name


def test_ids_given_twice_are_refused(encoder: M3Encoder) -> None:
    with pytest.raises(DuplicateIdError, match="'a'"):
        M3EnsembleRetriever.from_texts(["x", "y"], encoder=encoder, ids=["a", "a"])


def test_metadatas_of_another_length_are_refused(encoder: M3Encoder) -> None:
    with pytest.raises(InputError, match="1 for 2 texts"):
        M3EnsembleRetriever.from_texts(["x", "y"], encoder=encoder, metadatas=[{}])


@pytest.mark.parametrize("k", [0, -1, True, 2.0])
def test_k_below_one_is_refused(retriever: M3EnsembleRetriever, k: Any) -> None:
    with pytest.raises(InputError, match="k expects an integer of at least 1"):
        retriever.invoke(QUERY, k=k)


def test_unknown_filter_operator_is_refused(retriever: M3EnsembleRetriever) -> None:
    with pytest.raises(FilterError, match=r"\$near"):
        retriever.invoke(QUERY, filter={"n": {"$near": 3}})


def test_unknown_option_is_refused(retriever: M3EnsembleRetriever) -> None:
    with pytest.raises(TypeError, match="filters"):
        retriever.invoke(QUERY, filters={"n": 3})


def test_one_source_at_a_time(retriever: M3EnsembleRetriever) -> None:
    with pytest.raises(ValueError, match="expects hybrid= or"):
        M3EnsembleRetriever()
    with pytest.raises(ValueError, match="expects hybrid= or"):
        M3EnsembleRetriever(hybrid=retriever.hybrid, retrievers=[retriever])
    with pytest.raises(ValueError, match="fusion"):
        M3EnsembleRetriever(hybrid=retriever.hybrid, fusion=ReciprocalRankFusion())
