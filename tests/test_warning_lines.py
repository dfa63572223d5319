"""Warnings name the line of the caller's own file, through every way into the package."""

import warnings
from pathlib import Path

import pytest

from m3_retrievers import HybridRetriever, M3Encoder
from m3_retrievers.errors import TruncationWarning
from m3_retrievers.retrieval.reranking import rerank

LONG = "The river rose three metres overnight. " * 9
SOURCE = Path(m3_file := __file__).read_text("utf-8").splitlines()


@pytest.fixture(scope="module")
def encoder(tiny_m3):
    return M3Encoder.from_pretrained(
        tiny_m3, device="cpu", query_max_length=8, document_max_length=8
    )


def assert_names(said: list[warnings.WarningMessage], line: str) -> None:
    found = [one for one in said if one.category is TruncationWarning]
    assert found
    for one in found:
        assert one.filename == m3_file
        assert line in SOURCE[one.lineno - 1]


def test_encoding_names_the_callers_line(encoder):
    with pytest.warns(TruncationWarning) as said:
        encoder.encode_documents([LONG])  # documents
    assert_names(said.list, "# documents")
    with pytest.warns(TruncationWarning) as said:
        encoder.encode_query(LONG)  # query
    assert_names(said.list, "# query")
    with pytest.warns(TruncationWarning) as said:
        list(encoder.iter_documents([LONG]))  # many
    assert_names(said.list, "# many")


def test_adding_searching_and_reranking_name_the_callers_line(encoder):
    retriever = HybridRetriever(encoder)
    with pytest.warns(TruncationWarning) as said:
        retriever.add([LONG])  # add
    assert_names(said.list, "# add")
    with pytest.warns(TruncationWarning) as said:
        retriever.search(LONG)  # search
    assert_names(said.list, "# search")
    with pytest.warns(TruncationWarning) as said:
        rerank(encoder, "river", [LONG])  # rerank
    assert_names(said.list, "# rerank")


def test_a_langchain_reranker_names_the_callers_line(encoder):
    documents = pytest.importorskip("langchain_core.documents", reason="needs langchain-core")
    from m3_retrievers.langchain import M3ColbertReranker

    reranker = M3ColbertReranker(encoder=encoder)
    with pytest.warns(TruncationWarning) as said:
        reranker.compress_documents([documents.Document(LONG)], "river")  # compress
    assert_names(said.list, "# compress")


def test_a_langchain_retriever_names_the_callers_line(encoder):
    documents = pytest.importorskip("langchain_core.documents", reason="needs langchain-core")
    from m3_retrievers.langchain import M3EnsembleRetriever

    with pytest.warns(TruncationWarning) as said:
        retriever = M3EnsembleRetriever.from_documents(  # from documents
            [documents.Document(LONG)], encoder=encoder
        )
    assert_names(said.list, "# from documents")
    with pytest.warns(TruncationWarning) as said:
        retriever.invoke(LONG)  # invoke
    assert_names(said.list, "# invoke")


def test_nothing_in_the_package_gives_a_warning_by_a_fixed_depth():
    import m3_retrievers

    for path in Path(m3_retrievers.__file__).parent.rglob("*.py"):
        if path.name not in ("errors.py", "console.py"):
            assert "warnings.warn" not in path.read_text("utf-8"), path
