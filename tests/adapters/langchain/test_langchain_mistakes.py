"""What a newcomer types first, where it is not quite right: each message says what to do."""

from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import create_retriever_tool

from m3_retrievers import HybridRetriever, M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.langchain import (
    BM25Retriever,
    M3ColbertReranker,
    M3DocumentIndex,
    M3Embeddings,
    M3EnsembleRetriever,
    M3HybridReranker,
    M3SparseEmbeddings,
    M3SparseRetriever,
    M3VectorStore,
)

Takes = Callable[[Any, M3Encoder], Any]


@pytest.mark.parametrize(
    "takes_documents",
    [
        lambda given, encoder: M3EnsembleRetriever.from_documents(given, encoder=encoder),
        lambda given, encoder: M3SparseRetriever.from_documents(given, encoder=encoder),
        lambda given, _: BM25Retriever.from_documents(given),
        lambda given, encoder: M3VectorStore.from_documents(given, encoder),
        lambda given, encoder: M3VectorStore(HybridRetriever(encoder)).add_documents(given),
        lambda given, encoder: M3DocumentIndex(hybrid=HybridRetriever(encoder)).upsert(given),
        lambda given, encoder: M3ColbertReranker(encoder=encoder).compress_documents(given, "q"),
    ],
)
def test_strings_where_documents_belong(takes_documents: Takes, encoder: M3Encoder) -> None:
    with pytest.raises(InputError, match=r"got str \('a text'\) at position 0.*from_texts"):
        takes_documents(["a text"], encoder)
    with pytest.raises(InputError, match=r"of LangChain Documents, got one Document.*Wrap it"):
        takes_documents(Document("a text"), encoder)


def test_documents_where_strings_belong(encoder: M3Encoder) -> None:
    for made in (M3EnsembleRetriever, M3SparseRetriever):
        with pytest.raises(
            InputError, match=r"texts expects strings, got Document.*from_documents"
        ):
            made.from_texts([Document("a")], encoder=encoder)  # type: ignore[list-item]


def test_options_that_are_not_known_are_refused(encoder: M3Encoder) -> None:
    with pytest.raises(InputError, match="top_k"):
        M3ColbertReranker(encoder=encoder, top_k=3)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="top_k"):
        M3DocumentIndex(hybrid=HybridRetriever(encoder), top_k=3)  # type: ignore[call-arg]
    bm25 = BM25Retriever.from_texts(["a"])
    with pytest.raises(InputError, match="top_k"):
        BM25Retriever(index=bm25.index, top_k=3)  # type: ignore[call-arg]


def test_k_below_one_is_refused_when_it_is_set(encoder: M3Encoder) -> None:
    with pytest.raises(InputError, match="k expects an integer of at least 1, got 0"):
        M3DocumentIndex(hybrid=HybridRetriever(encoder), k=0)
    with pytest.raises(InputError, match="k expects an integer of at least 1, got 0"):
        BM25Retriever.from_texts(["a"], k=0)
    with pytest.raises(InputError, match="k expects an integer of at least 1, got 0"):
        M3SparseRetriever.from_texts(["a"], encoder=encoder, k=0)


async def test_a_mapping_from_a_chain(encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
    retriever = M3EnsembleRetriever.from_documents(documents, encoder=encoder, k=1)
    asked: Any = {"question": "Where is the river?"}
    for asking in (retriever, BM25Retriever.from_documents(documents)):
        with pytest.raises(InputError, match=r"got dict.*itemgetter\('question'\)"):
            asking.invoke(asked)
        with pytest.raises(InputError, match=r"got dict.*itemgetter\('question'\)"):
            await asking.ainvoke(asked)
    chain = itemgetter("question") | retriever
    assert chain.invoke(asked) == retriever.invoke("Where is the river?")


def test_a_store_is_loaded_with_embeddings_too(
    encoder: M3Encoder, documents: tuple[Document, ...], tmp_path: Path
) -> None:
    embeddings = M3Embeddings(encoder)
    M3VectorStore.from_documents(list(documents), embeddings).save(tmp_path / "store")
    loaded = M3VectorStore.load(tmp_path / "store", embeddings)
    assert [d.id for d in loaded.get_by_ids(["1", "0"])] == ["1", "0"]


def test_everything_shows_what_it_is(encoder: M3Encoder) -> None:
    store = M3VectorStore.from_texts(["a"], encoder)
    assert repr(store) == f"M3VectorStore({store.hybrid!r})"
    assert "documents=1" in repr(store)
    assert repr(M3Embeddings(encoder)) == f"M3Embeddings({encoder!r})"
    assert repr(M3SparseEmbeddings(encoder)) == f"M3SparseEmbeddings({encoder!r})"


def test_the_retriever_is_a_tool(encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
    retriever = M3EnsembleRetriever.from_documents(documents, encoder=encoder, k=1)
    tool = create_retriever_tool(retriever, "library", "Searches the library.")
    assert tool.invoke({"query": documents[0].page_content}) == documents[0].page_content


def test_a_filter_is_bound_for_a_chain(encoder: M3Encoder, documents: tuple[Document, ...]) -> None:
    retriever = M3EnsembleRetriever.from_documents(documents, encoder=encoder, k=6)
    bound = retriever.bind(filter={"n": {"$gte": 4}})
    assert {d.metadata["n"] for d in bound.invoke("river")} == {4, 5}


def test_everything_takes_an_encoder_by_position_or_by_name(encoder: M3Encoder) -> None:
    for kind in (M3Embeddings, M3SparseEmbeddings, M3ColbertReranker, M3HybridReranker):
        for given in (encoder, encoder.name):
            assert kind(given).encoder.fingerprint == encoder.fingerprint
    sparse = M3SparseRetriever.from_texts(["a"], encoder.name)
    assert M3SparseRetriever(sparse.index, encoder).invoke("a") == sparse.invoke("a")
    assert BM25Retriever(BM25Retriever.from_texts(["a b"]).index).invoke("zz") == []


def test_metadatas_and_ids_come_as_langchain_gives_them(encoder: M3Encoder) -> None:
    """By position, from an array or a generator, None where a text has none."""
    given: Any = [{"n": 1}, None]
    for metadatas in (given, np.array(given), iter(given)):
        made = BM25Retriever.from_texts(["a page", "a river"], metadatas, ids=["1", "2"])
        assert [d.metadata.get("n") for d in made.invoke("page river")] in ([1, None], [None, 1])
    with pytest.raises(InputError, match=r"metadatas expects mappings, got str \('a'\)"):
        M3EnsembleRetriever.from_texts(["x"], encoder, ["a"])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"ids expects ids that are strings, got int"):
        M3VectorStore(encoder).add_texts(["x"], ids=[1])  # type: ignore[list-item]
    with pytest.raises(InputError, match="metadatas expects one entry a text, got 2 for 1"):
        M3SparseRetriever.from_texts(["x"], encoder, given)
    with pytest.raises(InputError, match=r"from_texts got the option 'metadata'.*metadatas=\?"):
        M3EnsembleRetriever.from_texts(["x"], encoder, metadata=given)


def test_k_for_a_stores_retriever_goes_into_search_kwargs(encoder: M3Encoder) -> None:
    with pytest.raises(InputError, match=r"'k'.*Did you mean search_kwargs=\?"):
        M3VectorStore(encoder).as_retriever(k=1)


@pytest.mark.parametrize("vector", ["a text", [float("nan")] * 16, None, [[1.0]]])
def test_a_vector_is_a_list_of_finite_numbers(encoder: M3Encoder, vector: Any) -> None:
    with pytest.raises(InputError, match="A vector expects a list of finite numbers"):
        M3VectorStore(encoder).similarity_search_by_vector(vector)


@pytest.mark.parametrize("answers", [["a text"], None])
def test_a_retriever_that_finds_no_documents_is_named(answers: Any) -> None:
    made = M3EnsembleRetriever(retrievers=[RunnableLambda(lambda _: answers)])
    with pytest.raises(
        InputError, match=r"retriever_1 expects .*LangChain Documents as its answers"
    ):
        made.invoke("q")


def test_a_rerankers_arguments_the_wrong_way_round(encoder: M3Encoder) -> None:
    with pytest.raises(InputError, match="documents expects a list of LangChain Documents"):
        M3ColbertReranker(encoder).compress_documents("q", [Document("a")])  # type: ignore[arg-type]
