"""M3EnsembleRetriever over retrievers of any kind."""

import asyncio
from copy import deepcopy
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore

from m3_retrievers import M3Encoder, ReciprocalRankFusion
from m3_retrievers.errors import FilterError, InputError
from m3_retrievers.langchain import (
    BM25Retriever,
    M3ColbertReranker,
    M3Embeddings,
    M3EnsembleRetriever,
    M3HybridReranker,
    M3VectorStore,
)

QUERY = "Where is the river?"


class Fixed(BaseRetriever):
    """Returns the same documents whatever is asked."""

    found: list[Document]

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return self.found


def fixed(*found: Document) -> Fixed:
    return Fixed(found=list(found))


def doc(text: str, id: str | None = None, **metadata: Any) -> Document:
    return Document(page_content=text, id=id, metadata=metadata)


def texts(found: list[Document]) -> list[str]:
    return [document.page_content for document in found]


def test_fused_by_reciprocal_rank() -> None:
    ensemble = M3EnsembleRetriever(
        retrievers=[fixed(doc("a"), doc("b")), fixed(doc("b"), doc("c"))]
    )
    found = ensemble.invoke(QUERY)
    assert texts(found) == ["b", "a", "c"]
    expected = [1 / 62 + 1 / 61, 1 / 61, 1 / 62]
    assert [d.metadata["scores"]["fusion"] for d in found] == pytest.approx(expected)


def test_fusion_is_the_callers_choice() -> None:
    legs = [fixed(doc("a"), doc("b")), fixed(doc("b"), doc("a"))]
    second = ReciprocalRankFusion(weights={"retriever_1": 0.1, "retriever_2": 1.0})
    assert texts(M3EnsembleRetriever(retrievers=legs).invoke(QUERY)) == ["a", "b"]
    assert texts(M3EnsembleRetriever(retrievers=legs, fusion=second).invoke(QUERY)) == ["b", "a"]


def test_same_id_is_the_same_document() -> None:
    ensemble = M3EnsembleRetriever(
        retrievers=[fixed(doc("old", "1"), doc("x", "2")), fixed(doc("new", "1"))]
    )
    assert texts(ensemble.invoke(QUERY)) == ["old", "x"]


def test_equal_documents_under_two_ids_are_one() -> None:
    # two stores that made up an id each; nobody can tell these from ids that were given
    legs = [fixed(doc("a", "made-up-1", n=1)), fixed(doc("a", "made-up-2", n=1))]
    (found,) = M3EnsembleRetriever(retrievers=legs).invoke(QUERY)
    assert found.metadata["scores"] == {"fusion": pytest.approx(2 / 61)}


def test_stores_that_make_up_ids_are_fused(encoder: M3Encoder) -> None:
    texts = ("The river rose.", "A page.", "The bridge over the river.", "A clock.")
    given = [doc(text, None, n=n) for n, text in enumerate(texts)]
    stores = [InMemoryVectorStore(M3Embeddings(encoder)) for _ in range(2)]
    for store in stores:
        store.add_documents(given)
    retrievers = [store.as_retriever(search_kwargs={"k": 6}) for store in stores]
    found = M3EnsembleRetriever(retrievers=retrievers, k=12).invoke(QUERY)
    assert sorted(d.metadata["n"] for d in found) == list(range(4))
    assert found[0].metadata["scores"]["fusion"] == pytest.approx(2 / 61)


def test_what_stores_add_to_metadata_is_no_part_of_a_document() -> None:
    qdrant = doc("a", None, n=1, _id="7b0c", _collection_name="mine")
    legs = [fixed(qdrant), fixed(doc("a", "1", n=1)), fixed(doc("a", None, n=1, pk=4))]
    (found,) = M3EnsembleRetriever(retrievers=legs).invoke(QUERY)
    assert found.id == "1"


@pytest.mark.parametrize("with_id_first", [True, False])
def test_without_both_ids_text_and_metadata_decide(with_id_first: bool) -> None:
    legs = [fixed(doc("a", "1", n=1)), fixed(doc("a", None, n=1), doc("a", None, n=2))]
    found = M3EnsembleRetriever(retrievers=legs if with_id_first else legs[::-1]).invoke(QUERY)
    assert [(d.id, d.metadata["n"]) for d in found] == [("1", 1), (None, 2)]


def test_written_scores_are_no_part_of_a_documents_identity() -> None:
    scored = doc("a", None, scores={"bm25": 2.0}, relevance_score=0.5)
    (found,) = M3EnsembleRetriever(retrievers=[fixed(doc("a")), fixed(scored)]).invoke(QUERY)
    assert found.metadata["scores"] == {"bm25": 2.0, "fusion": pytest.approx(2 / 61)}


def test_id_key_identifies_documents_without_ids() -> None:
    legs = [fixed(doc("a", None, pk=1, store="x")), fixed(doc("a", None, pk=1, store="y"))]
    assert len(M3EnsembleRetriever(retrievers=legs).invoke(QUERY)) == 2
    assert len(M3EnsembleRetriever(retrievers=legs, id_key="pk").invoke(QUERY)) == 1


def test_a_leg_that_repeats_a_document_counts_it_once() -> None:
    ensemble = M3EnsembleRetriever(retrievers=[fixed(doc("a"), doc("a"), doc("b"))])
    found = ensemble.invoke(QUERY)
    assert [d.metadata["scores"]["fusion"] for d in found] == pytest.approx([1 / 61, 1 / 62])


def test_reranker_orders_by_the_hybrid_score(
    encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    store = InMemoryVectorStore(M3Embeddings(encoder))
    store.add_documents(list(documents))
    ensemble = M3EnsembleRetriever(
        retrievers=[
            store.as_retriever(search_kwargs={"k": 6}),
            BM25Retriever.from_documents(documents, k=6),
        ],
        reranker=M3HybridReranker(encoder=encoder),
        k=6,
    )
    found = ensemble.invoke(QUERY)
    (expected,) = M3EnsembleRetriever.from_documents(documents, encoder=encoder, k=6).batch([QUERY])
    assert [d.id for d in found] == [d.id for d in expected]
    for mine, theirs in zip(found, expected, strict=True):
        scores = mine.metadata["scores"]
        assert set(scores) >= {"dense", "sparse", "colbert", "hybrid", "fusion"}
        for mode in theirs.metadata["scores"]:
            # the index keeps ColBERT vectors as float16
            assert scores[mode] == pytest.approx(theirs.metadata["scores"][mode], abs=2e-3)


def test_k_cuts_after_reranking(encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
    reranker = M3ColbertReranker(encoder=encoder)
    ensemble = M3EnsembleRetriever(retrievers=[fixed(*documents)], reranker=reranker, k=2)
    best = [d.id for d in reranker.compress_documents(documents, QUERY)]
    assert [d.id for d in ensemble.invoke(QUERY)] == best[:2]
    assert [d.id for d in ensemble.invoke(QUERY, k=4)] == best[:4]


def test_filter_applies_before_the_top_k_of_every_retriever(
    encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    store = M3VectorStore.from_documents(documents, encoder)
    ensemble = M3EnsembleRetriever(
        retrievers=[
            store.as_retriever(search_kwargs={"k": 1, "filter": {"n": {"$gt": 1}}}),
            BM25Retriever.from_documents(documents, k=1),
            BM25Retriever.from_documents(documents).bind(k=1, filter={"n": {"$lt": 1}}),
        ],
        k=6,
    )
    found = ensemble.invoke("the river", filter={"even": True})
    # the store's best even one above 1, BM25's best even one, and the only one below 1
    assert {d.metadata["n"] for d in found} <= {0, 2, 4}
    assert len(found) >= 2
    with pytest.raises(FilterError):
        ensemble.invoke("the river", filter={"n": {"$near": 1}})


async def test_filter_over_retrievers_that_take_none_is_refused(
    documents: tuple[Document, ...],
) -> None:
    ensemble = M3EnsembleRetriever(
        retrievers=[BM25Retriever.from_documents(documents), fixed(*documents)]
    )
    with pytest.raises(InputError, match=r"got retriever_2 \(Fixed\)"):
        ensemble.invoke("the river", filter={"even": False})
    with pytest.raises(InputError, match=r"got retriever_2 \(Fixed\)"):
        await ensemble.ainvoke("the river", filter={"even": False})


def test_legs_are_child_runs(runs: Any) -> None:
    ensemble = M3EnsembleRetriever(retrievers=[fixed(doc("a")), fixed(doc("b"))])
    ensemble.invoke(QUERY, {"callbacks": [runs]})
    assert [run["tags"] for run in runs.children] == [["retriever_1"], ["retriever_2"]]
    assert [texts(run["documents"]) for run in runs.children] == [["a"], ["b"]]


async def test_async_legs_run_side_by_side_as_child_runs(runs: Any) -> None:
    both_started = asyncio.Barrier(2)

    class Meeting(Fixed):
        async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            async with asyncio.timeout(60):
                await both_started.wait()
            return self.found

    ensemble = M3EnsembleRetriever(
        retrievers=[Meeting(found=[doc("a")]), Meeting(found=[doc("b")])]
    )
    assert texts(await ensemble.ainvoke(QUERY, {"callbacks": [runs]})) == ["a", "b"]
    assert sorted(run["tags"][0] for run in runs.children) == ["retriever_1", "retriever_2"]


async def test_async_equals_sync(encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
    ensemble = M3EnsembleRetriever(
        retrievers=[fixed(*documents), BM25Retriever.from_documents(documents)],
        reranker=M3HybridReranker(encoder=encoder, top_n=3),
    )
    found = ensemble.invoke(QUERY)
    assert await ensemble.ainvoke(QUERY) == found
    assert len(found) == 3


def test_the_legs_documents_are_not_touched(
    encoder: M3Encoder, documents: tuple[Document, ...]
) -> None:
    given = [deepcopy(document) for document in documents]
    ensemble = M3EnsembleRetriever(
        retrievers=[fixed(*given)], reranker=M3HybridReranker(encoder=encoder)
    )
    for found in ensemble.invoke(QUERY):
        found.metadata["mine"] = True
    assert given == list(documents)


def test_ensembles_nest(encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
    inner = M3EnsembleRetriever.from_documents(documents, encoder=encoder)
    outer = M3EnsembleRetriever(retrievers=[inner, BM25Retriever.from_documents(documents)])
    found = outer.invoke("the river", k=2, filter={"even": True})
    assert [d.metadata["even"] for d in found] == [True, True]
    assert set(found[0].metadata["scores"]) >= {"dense", "hybrid", "bm25", "fusion"}


def test_no_documents_give_no_results(encoder: M3Encoder) -> None:
    ensemble = M3EnsembleRetriever(retrievers=[fixed()], reranker=M3HybridReranker(encoder=encoder))
    assert ensemble.invoke(QUERY) == []
