"""M3EnsembleRetriever over any retrievers: the second door."""

import asyncio
from copy import deepcopy
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore

from m3_retrievers import M3Encoder, ReciprocalRankFusion
from m3_retrievers.errors import FilterError
from m3_retrievers.langchain import (
    BM25Retriever,
    M3ColbertReranker,
    M3Embeddings,
    M3EnsembleRetriever,
    M3HybridReranker,
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


def test_different_ids_are_different_documents() -> None:
    ensemble = M3EnsembleRetriever(retrievers=[fixed(doc("a", "1")), fixed(doc("a", "2"))])
    assert [d.id for d in ensemble.invoke(QUERY)] == ["1", "2"]


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


def test_filter_holds_for_every_leg(documents: tuple[Document, ...]) -> None:
    ensemble = M3EnsembleRetriever(
        retrievers=[fixed(*documents), BM25Retriever.from_documents(documents, k=1)], k=6
    )
    found = ensemble.invoke("the river", filter={"even": False})
    assert sorted(d.metadata["n"] for d in found) == [1, 3, 5]
    assert any("bm25" in d.metadata["scores"] for d in found), "BM25 filtered after its top k"
    with pytest.raises(FilterError):
        ensemble.invoke("the river", filter={"n": {"$near": 1}})


def test_legs_are_child_runs(runs: Any) -> None:
    ensemble = M3EnsembleRetriever(retrievers=[fixed(doc("a")), fixed(doc("b"))])
    ensemble.invoke(QUERY, {"callbacks": [runs]})
    assert [run["tags"] for run in runs.children] == [["retriever_1"], ["retriever_2"]]
    assert [texts(run["documents"]) for run in runs.children] == [["a"], ["b"]]


async def test_async_legs_run_side_by_side_as_child_runs(runs: Any) -> None:
    both_started = asyncio.Barrier(2)

    class Meeting(Fixed):
        async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            async with asyncio.timeout(10):
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
    found = ensemble.invoke(QUERY, filter={"even": True})
    assert await ensemble.ainvoke(QUERY, filter={"even": True}) == found
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
